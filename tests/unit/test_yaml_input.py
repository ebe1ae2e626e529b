"""A hostile or broken file is an InputError that says where, never a crash and never without end."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
import yaml

from stack.errors import InputError
from stack.yaml_input import MAX_BYTES, MAX_DEPTH, MAX_VALUES, load_mapping, parsed
from stacks import ROOT
from unit.conftest import WriteStack

# Nine levels of ten aliases: a billion values when they are expanded.
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join([f'*{chr(97 + n)}'] * 10)}]\n" for n in range(9)
)


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as error:
        load_mapping(path, "stack.yaml")
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: caf\xe9\n", "not UTF-8: byte 0xe9 at offset 9"),
        ("name: x\n".encode("utf-16"), "not UTF-8: byte 0xff at offset 0"),
        (b"name: a\x00b\n", "character 0x0000 at position 7"),
        (b"a: [1, 2\nb: 3\n", "line 2"),
        (b"a:\n\t- b\n", "line 2, column 1"),
        (b"a: *nowhere\n", "undefined alias 'nowhere'"),
        (b"a: 1\n---\nb: 2\n", "another document"),
        (b"a: !!python/name:os.system x\n", "tags that build objects are not allowed"),
        (b"a: !local x\n", "tags that build objects are not allowed"),
        (b"a: 2001-99-99\n", "month"),
        (b"a: " + b"9" * 10_000, "4300 digits"),
        (b"a: {b: 1, c: 2, b: 3}\n", "line 1, column 17: key 'b' is given twice"),
        (b"a: &a {b: *a}\n", "a cycle"),
        (b"a: &a [[*a]]\n", "a cycle"),
        (b"a: !!int ''\n", "does not fit its tag"),
        (b"just text\n", "this is a text"),
        (b"- a\n- b\n", "this is a list"),
        (b"42\n", "this is a number"),
        (b"true\n", "this is a true/false"),
        (b"", "the file is empty"),
        (b"# only a comment\n", "the file is empty"),
        (b"---\n...\n", "the file is empty"),
    ],
)
def test_a_broken_file_is_refused_with_the_reason(write_stack: WriteStack, content: bytes, said: str) -> None:
    message = refusal(write_stack(content))
    assert message.startswith("stack.yaml: ")
    assert said in message


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? ", "[{a: ["])
def test_nesting_without_end_is_refused_before_the_tree_is_built(write_stack: WriteStack, opening: str) -> None:
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(write_stack(f"a:\n  {opening * 100_000}"))


def test_nesting_up_to_the_limit_is_read(write_stack: WriteStack) -> None:
    depth = MAX_DEPTH - 2
    nested = load_mapping(write_stack("a: " + "[" * depth + "]" * depth))["a"]
    for _ in range(depth - 1):
        (nested,) = nested
    assert nested == []


def test_a_file_of_ten_megabytes_is_refused_without_being_parsed(write_stack: WriteStack) -> None:
    path = write_stack(b"a: " + b"[" * 10 * 1024 * 1024)
    assert f"larger than {MAX_BYTES // 1024**2} MiB" in refusal(path)


def test_no_more_than_the_limit_is_read_of_an_endless_file() -> None:
    tracemalloc.start()
    try:
        assert "larger than" in refusal(Path("/dev/zero"))
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_aliases_that_multiply_are_refused(write_stack: WriteStack) -> None:
    assert "aliases expanded" in refusal(write_stack(LAUGHS))


def test_merge_keys_that_multiply_are_refused(write_stack: WriteStack) -> None:
    rows = [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 20)}]}}" for level in range(1, 9)]
    assert "aliases expanded" in refusal(write_stack("a0: &a0 {k: 1}\n" + "\n".join(rows)))


def test_a_long_chain_of_aliases_is_as_deep_as_what_it_stands_for(write_stack: WriteStack) -> None:
    rows = [f"a{level}: &a{level} [*a{level - 1}]" for level in range(1, 100)]
    assert f"nested deeper than {MAX_DEPTH} levels" in refusal(write_stack("a0: &a0 [1]\n" + "\n".join(rows)))


def test_a_file_of_too_many_values_is_refused_where_they_become_too_many(write_stack: WriteStack) -> None:
    assert f"more than {MAX_VALUES} values" in refusal(write_stack("a:\n" + "- 1\n" * 1_000_000))


def test_an_alias_used_a_few_times_is_read(write_stack: WriteStack) -> None:
    assert load_mapping(write_stack("a: &a [1]\nb: *a\nc: *a\n")) == {"a": [1], "b": [1], "c": [1]}


def test_without_libyaml_the_same_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [ROOT / "stack.example.yaml", ROOT / "compose/images.yaml"]
    documents = [(load_mapping(path), parsed(path.read_bytes())) for path in paths]
    monkeypatch.setattr("stack.yaml_input._FAST", yaml.SafeLoader)
    assert [(load_mapping(path), parsed(path.read_bytes())) for path in paths] == documents


def test_a_byte_order_mark_is_no_part_of_the_first_key(write_stack: WriteStack) -> None:
    assert load_mapping(write_stack(b"\xef\xbb\xbfname: x\n")) == {"name": "x"}


@pytest.mark.parametrize("path", ["nowhere.yaml", "."])
def test_what_cannot_be_read_is_named(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_mapping(tmp_path / path)
