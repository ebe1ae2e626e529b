"""The commands: each explains itself, and those that touch nothing run here on a file of their own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from stack.deploy.records import Made
from stack.hardware import Host, save_hosts
from stacks import ROOT
from unit.conftest import WriteStack

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))
WITHOUT_STACK = {"deploy_holder.py", "pull.py"}
Output = tuple[int, str, str]


@pytest.fixture
def stack(write_stack: WriteStack, tmp_path: Path) -> Path:
    return write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {toy: true}}]\n"
        f"paths: {{state: {tmp_path}/state, build: {tmp_path}/build}}\n"
    )


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, *arguments: str) -> Output:
    """(exit code, stdout, stderr) of a script, in this process."""
    monkeypatch.setattr("sys.argv", [f"scripts/{name}", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "scripts" / name), run_name="__main__")
    printed = capsys.readouterr()
    return int(ended.value.code or 0), printed.out, printed.err


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_says_what_it_is_for_and_gives_an_example(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, name, "--help")
    assert (code, err) == (0, "")
    _, _, after = out.partition("example:")
    assert f"scripts/{name}" in after
    assert len(out.split("options:")[0].split("\n\n")) > 1  # a description after the usage


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_argument_that_it_does_not_know_is_exit_code_2(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, name, "--no-such-option")
    assert (code, out) == (2, "")
    assert "usage:" in err


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in WITHOUT_STACK])
def test_a_wrong_stack_file_is_exit_code_2_and_one_message(
    name: str, write_stack: WriteStack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_stack("nme: x\n")
    more = {
        "drain.py": ["engine-toy-0"],
        "keys.py": ["list"],
        "cordon.py": ["GPU-0"],
        "restore.py": ["x"],
        "upgrade_check.py": ["1.2.3"],
        "release.py": ["--hosts", "hosts.yaml", "--host", "h", "--state", "/s", "--output", str(path.parent / "out")],
        "host_state.py": ["--host", "h"],
        "render_for_host.py": ["--facts", "state.json"],
        "render_fleet.py": ["--facts", str(path.parent), "--output", str(path.parent), "--lock", "hosts.lock"],
        "fleet_host.py": ["prepare", "--hosts", "hosts.yaml", "--host", "h", "--shipped", "nothing"],
        "fleet_secrets.py": ["--hosts", "hosts.yaml"],
        "fleet_steps.py": ["--hosts", "hosts.yaml"],
        "pool.py": ["out", "--seconds=60", "engine-toy-0=1"],
    }.get(name, [])
    code, out, err = run(monkeypatch, capsys, name, str(path), *more)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {path}: 2 problems\n")


def test_a_plan_is_printed_for_a_person_and_for_a_machine(
    stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "plan.py", str(stack))
    assert code == 0
    assert "engine-toy-0" in out
    code, out, _ = run(monkeypatch, capsys, "plan.py", str(stack), "--json")
    assert code == 0
    assert [engine["name"] for engine in json.loads(out)["plans"][0]["engines"]] == ["engine-toy-0"]


@pytest.mark.parametrize(("sections", "lines"), [("", 0), ("images: {source: build}\n", 1)])
def test_a_part_that_cannot_be_had_is_told_in_one_line(
    sections: str, lines: int, stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.write_text(stack.read_text() + sections)
    code, out, _ = run(monkeypatch, capsys, "plan.py", str(stack))
    assert code == 0
    told = [line for line in out.splitlines() if "left out" in line]
    assert len(told) == lines
    assert all("grafana" in line for line in told)


def test_rendering_again_writes_nothing(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "build/localhost")
    first, again = (json.loads(run(monkeypatch, capsys, "render.py", str(stack), "--json")[1]) for _ in range(2))
    assert {"compose.yaml", "plan.json", "nginx/nginx.conf"} <= set(first[folder])
    assert again == {folder: []}
    assert json.loads((tmp_path / "build/localhost/plan.json").read_text())["host"] == "localhost"
    assert not (tmp_path / "state").exists()


def test_a_smoke_test_from_elsewhere_needs_a_key(
    stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, "smoke.py", str(stack), "--url", "https://localhost:1")
    assert code == 2
    assert "--key-file" in err


@pytest.mark.parametrize("name", ["logs.py", "status.py"])
def test_a_stack_that_was_never_applied_is_told_as_such(
    name: str, stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, name, str(stack))
    assert (code, out) == (2, "")
    assert "make up" in err


def test_a_release_says_where_it_is_from_and_what_all_hosts_have_in_common(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hosts = tmp_path / "hosts.yaml"
    save_hosts(hosts, (Host(name="h1"), Host(name="h2")))
    monkeypatch.setenv("STACK_RELEASED_BY", "alice")
    said = []
    for name in ("h1", "h2"):
        options = ["--hosts", str(hosts), "--host", name, "--state", "/s", "--output", str(tmp_path / "out")]
        code, out, _ = run(monkeypatch, capsys, "release.py", str(stack), *options)
        assert code == 0
        said.append(json.loads(out))
    assert said[0]["id"] != said[1]["id"]
    assert said[0]["made"]["common"] == said[1]["made"]["common"]
    assert said[0]["made"]["who"] == "alice"
    assert Made.model_validate(said[0]["made"])


@pytest.mark.parametrize("name", ["activate.py", "rollback.py", "releases.py", "history.py"])
def test_what_is_for_hosts_says_so_in_a_checkout(
    name: str, stack: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, name, str(stack))
    assert (code, out) == (2, "")
    assert "INVENTORY=" in err
