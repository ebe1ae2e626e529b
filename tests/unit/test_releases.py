"""Releases that a host keeps: recorded when they are proven, gone back to, listed, compared, and the oldest removed."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import docker
import pytest
from docker.errors import ImageNotFound

from stack import lifecycle
from stack.deploy import activation, needs, provenance, records, retention
from stack.deploy.activation import Activation
from stack.deploy.history import changes, program_changes, release_table
from stack.deploy.member import membership
from stack.deploy.place import ReleasePlace, place_here, tree_of
from stack.deploy.records import Applied, Made, Record
from stack.errors import InputError, StackError
from stack.images.archive import Archived, ArchiveList
from stack.images.choice import built_reference
from stack.images.pins import load_pins
from stack.inputs import ROOT, add_arguments, gather
from stack.locks import only_one
from stack.models import lock as models_lock
from stack.render import manifest
from stack.tree import read_tree, unified, write_tree
from unit import given
from unit.conftest import WriteStack

MADE = Made(commit="c" * 40, dirty=False, who="alice", when="2026-01-01T00:00:00Z", common="0" * 16)
STATE = "/s/stacks/fleet"


def record(name: str, *numbers: int, common: str = "0" * 16, **keys: Any) -> Record:
    applied = tuple(Applied(number=number, how="deploy", who="alice", when="t") for number in numbers)
    made = MADE.model_copy(update={"common": common})
    known: dict[str, Any] = {"images": {}, "models": {}, "archive": None, "state": STATE, **keys}
    return Record(id=name, made=made, applied=applied, **known)


# --- which release


def test_a_second_rollback_goes_back_to_where_the_first_came_from() -> None:
    known = [record("a", 1), record("b", 2), record("c", 3)]
    back = records.previous(known, "c")
    assert back and back.id == "b"
    known = [record("a", 1), record("b", 2, 4), record("c", 3)]  # b was rolled back to
    again = records.previous(known, "b")
    assert again and again.id == "c"


def test_of_a_release_that_was_cut_off_the_way_back_is_to_the_one_that_runs_by_name() -> None:
    known = [record("a", 1), record("b", 2)]
    assert records.target(known, "b", "c", None).id == "b"
    assert records.target(known, "b", None, None).id == "a"
    assert records.target(known, "b", "c", "a").id == "a"


@pytest.mark.parametrize(
    ("noted", "wanted", "goal"),
    [
        (["c", None], None, "b"),
        (["c", "b", None], None, "c"),  # some hosts went back already: so the way back is to what the fleet ran
        (["c", "d"], None, "c"),  # one has begun with a release that came to no end
        (["c", "d"], "a", "a"),
    ],
)
def test_a_fleet_goes_back_as_the_host_of_prometheus_says(
    noted: list[str | None], wanted: str | None, goal: str
) -> None:
    known = [record("a", 1), record("b", 2), record("c", 3)]
    assert records.fleet_target(known, "c", noted, wanted).id == goal


def test_after_a_first_deploy_that_was_cut_off_a_fleet_has_nothing_to_go_back_to() -> None:
    with pytest.raises(InputError, match="no earlier release"):
        records.fleet_target([], None, ["a", None], None)


def test_without_an_earlier_release_there_is_nothing_to_go_back_to() -> None:
    with pytest.raises(InputError, match="no earlier release") as refused:
        records.target([record("a", 1)], "a", None, None)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(("name", "what"), [("x", "no release of this id"), ("a", "more than one"), ("", "no release")])
def test_an_id_that_is_unknown_or_ambiguous_is_refused(name: str, what: str) -> None:
    with pytest.raises(InputError, match=what):
        records.find([record("ab1", 1), record("ac2", 2)], name)


def test_a_release_is_found_by_the_beginning_of_its_id_or_by_what_all_hosts_have_in_common() -> None:
    known = [record("ab1", 1, common="f00d"), record("ac2", 2, common="cafe"), record("a", 3, common="beef")]
    assert records.find(known, "ab").id == "ab1"
    assert records.find(known, "caf").id == "ac2"
    assert records.find(known, "a").id == "a", "an id as a whole is not a beginning"


def test_a_release_of_another_stack_folder_is_refused() -> None:
    records.refuse_other_stack(record("a", 1), Path(STATE))
    with pytest.raises(InputError, match="make deploy"):
        records.refuse_other_stack(record("a", 1), Path("/s/stacks/other"))


@pytest.mark.parametrize(
    ("running", "count", "stay"),
    [
        ("e", 3, {"e", "d", "c"}),
        ("e", 1, {"e", "d"}),  # never the one before
        ("a", 2, {"a", "e"}),  # rolled back by name: the one that ran before is the newest
        ("a", 9, {"a", "b", "c", "d", "e"}),
    ],
)
def test_the_one_that_runs_and_the_one_before_always_stay(running: str, count: int, stay: set[str]) -> None:
    known = [record(name, number) for number, name in enumerate("abcde", 1)]
    assert records.kept(known, running, count) == stay


# --- records


def test_a_record_is_read_back_and_a_later_versions_keys_do_not_hinder(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    records.save(path, record("a", 1))
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "later": 1}))
    assert records.load(path) == record("a", 1)
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", ["", "{}", "\xff", '{"id": 1}'])
def test_a_damaged_record_is_told_and_hinders_nobody(tmp_path: Path, content: str) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.json").write_bytes(content.encode("latin-1"))
    records.save(tmp_path / "b.json", record("b", 1))
    records.save(tmp_path / "gone.json", record("gone", 2))  # its tree is not there
    told: list[str] = []
    assert [each.id for each in records.load_all(tmp_path, told.append)] == ["b"]
    assert len(told) == 1
    with pytest.raises(InputError, match="not a release's record"):
        records.load(tmp_path / "a.json")


def test_each_time_that_a_release_is_applied_has_a_number_of_its_own() -> None:
    known = [record("a", 1, 3), record("b", 2)]
    again = records.with_applied(known[1], known, "rollback", "bob", "t")
    assert [each.number for each in again.applied] == [2, 4]
    assert again.applied[-1].how == "rollback"


# --- becoming the one that runs


def tree(text: str) -> dict[str, bytes]:
    files = {"a": text.encode(), "plan.json": b'{"engines": [], "images": {"nginx": "nginx:1"}}'}
    return {**files, "manifest.json": manifest(files)}


def engine(images: dict[str, str]) -> docker.DockerClient:
    """An engine that has these images: reference -> ID."""

    def get(reference: str) -> Any:
        if reference not in images:
            raise ImageNotFound(reference)
        return SimpleNamespace(id=images[reference])

    return cast(docker.DockerClient, SimpleNamespace(images=SimpleNamespace(get=get)))


class Host:
    """A folder as a host has it: releases, their Pythons, and a stack's state."""

    def __init__(self, folder: Path) -> None:
        self.place = ReleasePlace(folder / "opt", folder / "state/stacks/fleet")
        self.live, self.shipped = self.place.state / "live", self.place.state / "shipped"
        self.place.releases.mkdir(parents=True)
        (self.place.root / "venvs/py").mkdir(parents=True)

    def send(self, name: str, python: str = "py") -> None:
        (self.place.releases / name / "scripts").mkdir(parents=True, exist_ok=True)
        link = self.place.releases / name / ".venv"
        if not link.is_symlink():
            link.symlink_to(f"../../venvs/{python}")

    def apply(self, name: str, how: records.How = "deploy", keep: int | None = None, who: str = "alice") -> None:
        self.send(name)
        made = None if how == "rollback" else MADE
        one = Activation(self.place, name, made, how, who, keep)
        one.check()
        config = given.config(given.toy(), paths={"state": str(self.place.state.parent.parent)})
        plan = given.plan(config)
        with one.going_on(self.live, self.shipped) as finish:
            write_tree(self.live, tree(name))
            finish(plan, tree(name), config, None, engine(dict.fromkeys(plan.images.values(), "sha256:1")))

    def known(self) -> dict[str, Record]:
        return {each.id: each for each in records.load_all(self.place.releases)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_a_release_that_is_proven_is_recorded_and_is_the_current_one(host: Host) -> None:
    host.apply("a")
    assert host.place.running() == "a"
    assert (host.place.link / "scripts").is_dir()
    one = host.known()["a"]
    assert (one.made, len(one.applied), set(one.images.values())) == (MADE, 1, {"sha256:1"})
    assert read_tree(tree_of(host.place.state, "a")) == read_tree(host.shipped) == tree("a")
    assert host.place.cut_off() is None


def test_applied_again_while_it_runs_nothing_is_recorded(host: Host) -> None:
    host.apply("a")
    before = host.place.record("a").stat().st_mtime_ns
    host.apply("a", who="bob")
    assert host.place.record("a").stat().st_mtime_ns == before


def test_a_rollback_is_in_the_history_and_keeps_who_made_the_release(host: Host) -> None:
    for name in ("a", "b"):
        host.apply(name)
    host.apply("a", "rollback", who="bob")
    one = host.known()["a"]
    assert host.place.running() == "a"
    assert [(each.how, each.who) for each in one.applied] == [("deploy", "alice"), ("rollback", "bob")]
    assert one.made.who == "alice"
    back = records.previous(list(host.known().values()), "a")
    assert back and back.id == "b"


def test_a_release_that_was_never_applied_cannot_be_gone_back_to(host: Host) -> None:
    host.send("a")
    with pytest.raises(InputError, match="never applied here"):
        host.apply("a", "rollback")


def fails(host: Host, name: str, leaves: str, error: type[BaseException] = RuntimeError) -> None:
    one = Activation(host.place, name, MADE, "deploy", "alice", 5)
    with pytest.raises(error), one.going_on(host.live, host.shipped):
        assert host.place.cut_off() == name
        write_tree(host.live, tree("half"))
        write_tree(host.live, tree(leaves))
        raise error


def test_what_failed_and_was_put_back_is_not_recorded(host: Host) -> None:
    host.apply("a")
    fails(host, "b", "a")
    assert (host.place.running(), host.place.cut_off(), list(host.known())) == ("a", None, ["a"])


def test_what_was_cut_off_leaves_a_note_until_a_release_is_proven(host: Host) -> None:
    host.apply("a")
    fails(host, "b", "half", KeyboardInterrupt)
    assert (host.place.running(), host.place.cut_off()) == ("a", "b")
    assert records.target(list(host.known().values()), "a", host.place.cut_off(), None).id == "a"
    host.apply("a", "rollback")
    assert host.place.cut_off() is None


def test_a_part_that_fails_and_is_put_back_leaves_the_note_that_was_there(host: Host) -> None:
    host.apply("a")
    with activation.noted(host.place, "b", host.live):
        write_tree(host.live, tree("half"))
    assert host.place.cut_off() == "b", "one replica of a fleet's deploy is done, and the release is not"
    with pytest.raises(StackError), activation.noted(host.place, "c", host.live):
        raise StackError("it does not come up")
    assert host.place.cut_off() == "b"


@pytest.fixture
def up(host: Host, write_stack: WriteStack, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """`make up` as a release calls it, on a host where nothing is really started."""
    stack = write_stack(
        "name: fleet\ndevice: cpu\nmodels: [{served_model_name: toy, source: {toy: true}}]\nimages: {source: build}\n"
        f"paths: {{state: {host.place.state.parent.parent}}}\n"
    )
    plan = given.plan(given.config(given.toy()))
    monkeypatch.setattr(lifecycle, "connect", lambda: engine(dict.fromkeys(plan.images.values(), "sha256:1")))
    monkeypatch.setattr("stack.apply.look", lambda *_: None)
    for name in ("refuse_downtime", "_drop_old_secrets", "remember"):
        monkeypatch.setattr(lifecycle, name, lambda *_, **__: None)
    monkeypatch.setattr("stack.certificates.keep_only", lambda *_: None)
    monkeypatch.setattr(lifecycle, "nginx_revision", lambda _: {"certificate": "c"})

    def run(name: str, error: Exception | None = None, how: records.How = "deploy") -> list[str]:
        def apply_and_prove(_: Any, state: Path, files: dict[str, bytes], *__: Any) -> list[str]:
            assert host.place.cut_off() == name
            if error:
                raise error
            write_tree(state / "live", files)
            return ["started engine-toy-0"]

        monkeypatch.setattr(lifecycle, "prepare", lambda inputs, *_: (inputs, plan, tree(name)))
        monkeypatch.setattr(lifecycle, "apply_and_prove", apply_and_prove)
        parser = argparse.ArgumentParser()
        add_arguments(parser)
        arguments = parser.parse_args([str(stack)])
        arguments.shipped, arguments.wait = None, 0
        host.send(name)
        return lifecycle.up(arguments, Activation(host.place, name, MADE, how, "alice", 5))[1]

    return run


def test_bringing_a_release_up_records_it_under_the_same_lock(host: Host, up: Callable[..., list[str]]) -> None:
    assert up("a") == ["started engine-toy-0"]
    up("b")
    assert (host.place.running(), sorted(host.known())) == ("b", ["a", "b"])
    up("a", how="rollback")
    assert host.place.running() == "a"
    with only_one(host.place.state), pytest.raises(StackError, match="another command"):
        up("b")
    assert (host.place.running(), host.place.cut_off()) == ("a", None)


def test_a_release_that_does_not_come_up_is_not_recorded(host: Host, up: Callable[..., list[str]]) -> None:
    up("a")
    with pytest.raises(StackError, match="broken"):
        up("b", StackError("broken"))
    assert (host.place.running(), host.place.cut_off(), list(host.known())) == ("a", None, ["a"])


def test_the_oldest_go_with_all_that_is_theirs(host: Host) -> None:
    old = time.time() - 2 * retention.UNRECORDED_SECONDS
    for name in "abcd":
        host.send(name, python=f"py-{name}")
        (host.place.root / f"venvs/py-{name}").mkdir()
        os.utime(host.place.root / f"venvs/py-{name}", (old, old))
        host.apply(name)
    host.apply("d", keep=2)
    assert sorted(path.name for path in host.place.releases.iterdir()) == ["c", "c.json", "d", "d.json"]
    assert sorted(path.name for path in (host.place.root / "venvs").iterdir()) == ["py", "py-c", "py-d"]
    assert sorted(path.name for path in (host.place.state / "releases").iterdir()) == ["c", "d"]


def test_a_rollback_removes_nothing(host: Host) -> None:
    for name in "abcdefg":
        host.apply(name)
    host.apply("a", "rollback")
    assert len(host.known()) == 7


def test_a_tree_that_a_deploy_has_just_sent_is_left_alone_and_an_old_one_is_not(host: Host) -> None:
    host.apply("a")
    for name in ("waits", "old", "half.partial"):
        (host.place.releases / name).mkdir()
    old = time.time() - 2 * retention.UNRECORDED_SECONDS
    for name in ("old", "half.partial"):
        os.utime(host.place.releases / name, (old, old))
    host.apply("b", keep=5)
    assert sorted(path.name for path in host.place.releases.iterdir()) == ["a", "a.json", "b", "b.json", "waits"]


def test_a_checkout_is_no_release(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="INVENTORY="):
        place_here(tmp_path, tmp_path / "checkout")
    assert place_here(tmp_path, tmp_path / "opt/releases/a").root == tmp_path / "opt"


def test_a_release_is_applied_by_its_own_program(host: Host) -> None:
    argv = activation.command(host.place, "a", "--rollback")
    tree = host.place.releases / "a"
    assert argv == [f"{tree}/.venv/bin/python", f"{tree}/scripts/activate.py", f"{tree}/stack.yaml",
                    f"--hosts={tree}/hosts.yaml", "--rollback"]  # fmt: skip


# --- what it needs


def problems(one: Record, images: dict[str, str | None], models: dict[str, str | None], python: Path) -> list[str]:
    return [str(problem) for problem in needs.missing(one, python, images, models)]


def test_everything_that_is_gone_is_named(tmp_path: Path) -> None:
    one = record("a", 1, images={"gone:1": "sha256:1", "moved:1": "sha256:2", "here:1": "sha256:3"},
                 models={"/m/gone": "", "/m/changed": "c0ffee", "/m/own": "", "/m/here": "abc"})  # fmt: skip
    found = problems(
        one, {"gone:1": None, "moved:1": "sha256:9", "here:1": "sha256:3"},
        {"/m/changed": "other", "/m/own": "", "/m/here": "abc"}, tmp_path / "python",
    )  # fmt: skip
    assert [text.split()[1] for text in found] == [
        str(tmp_path / "python"), "gone:1", "moved:1", "/m/changed", "/m/gone"
    ]  # fmt: skip


def test_a_rollback_is_refused_when_something_is_gone_and_says_what(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").touch()
    one = record("a", 1, images={"x:1": "sha256:1"}, models={str(tmp_path / "model"): ""})
    needs.refuse_missing(one, tmp_path, tmp_path, engine({"x:1": "sha256:1"}))
    with pytest.raises(InputError, match="is not on this host any more") as refused:
        needs.refuse_missing(one, tmp_path, tmp_path, engine({}))
    assert refused.value.exit_code == 2
    (tmp_path / "model").rmdir()
    with pytest.raises(InputError, match="model is not on this host"):
        needs.refuse_missing(one, tmp_path, tmp_path, engine({"x:1": "sha256:1"}))


def test_images_of_an_archive_are_those_that_the_release_had(tmp_path: Path, write_stack: WriteStack) -> None:
    pins = load_pins(ROOT)
    images = {
        role: Archived(id=f"sha256:{'a' * 64}", name=built_reference(ROOT, pins, pin.build or ""), digest=None, size=1)
        for role, pin in pins.buildable("cpu").items()
    }
    path = tmp_path / "a.json"
    records.save(path, record("a", 1, archive=ArchiveList(built=True, images=images)))
    stack = write_stack(
        "device: cpu\nmodels: [{served_model_name: toy, source: {toy: true}}]\n"
        f"images: {{source: archive, archive: /srv/gone.tar}}\npaths: {{state: {tmp_path}/state}}\n"
    )
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    arguments = parser.parse_args([str(stack)])
    with pytest.raises(InputError, match=r"gone\.tar"):
        gather(arguments)
    arguments.kept = path
    assert set(gather(arguments).images.values()) == {f"sha256:{'a' * 64}"}


def test_a_models_revision_is_what_the_fetch_brought(tmp_path: Path) -> None:
    models_lock.record(tmp_path / "models.lock", "org--m/main", {"commit": "c0ffee"})
    models_lock.record(tmp_path / "models.lock", "archives/a", {"sha256": "beef"})
    folders = [str(tmp_path / "models/org--m/main"), str(tmp_path / "models/archives/a"), "/srv/own"]
    assert list(needs.revisions(folders, tmp_path).values()) == ["c0ffee", "beef", ""]


# --- where it is from


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_release_names_the_commit_of_its_checkout_and_whether_it_was_changed(tmp_path: Path) -> None:
    assert provenance.revision(tmp_path) == (None, False)
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/release.py").write_text("x")
    git(tmp_path, "init", "--quiet")
    assert provenance.revision(tmp_path) == (None, False), "a folder in somebody else's repository"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "x")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert provenance.revision(tmp_path) == (head, False)
    (tmp_path / "new").touch()
    assert provenance.revision(tmp_path) == (head, True)


def test_who_asks_is_the_person_and_not_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(provenance.BY, raising=False)
    monkeypatch.setenv("SUDO_USER", "bob")
    assert provenance.who() == "bob"
    monkeypatch.setenv(provenance.BY, "alice")
    assert provenance.who() == "alice"


# --- what changed


def test_the_difference_of_two_releases_is_files_and_program(tmp_path: Path) -> None:
    for name, flag, code in (("old", "1", "x"), ("new", "2", "y")):
        folder = tmp_path / name
        (folder / "scripts/__pycache__").mkdir(parents=True)
        (folder / "scripts/__pycache__/up.pyc").write_text(code)
        (folder / "scripts/up.py").write_text(code)
        (folder / "stack.yaml").write_text(f"seed: {flag}\n")
        (folder / "hosts.yaml").write_text("hosts: []\n")
    found = changes(tmp_path / "old", tmp_path / "new", tree("1"), tree("2"))
    assert [(one.path, one.kind) for one in found] == [("stack.yaml", "changed"), ("a", "changed")]
    assert unified(found[0], "old", "new").splitlines()[-2:] == ["-seed: 1", "+seed: 2"]
    assert program_changes(tmp_path / "old", tmp_path / "new") == ["scripts/up.py"]


def test_a_host_knows_its_fleet_by_what_it_holds(tmp_path: Path) -> None:
    live, release = tmp_path / "live", tmp_path / "release"
    live.mkdir()
    release.mkdir()
    assert membership(release, live) is None
    (release / "hosts.yaml").write_text("hosts: [{name: h}]\n")
    assert membership(release, live) is None
    roles = {"front": ["gateway", "observability"], "a": ["engines"]}
    entries = [{"name": name, "roles": own, "address": f"10.0.0.{len(name)}"} for name, own in roles.items()]
    (release / "hosts.yaml").write_text(json.dumps({"hosts": entries}))
    with pytest.raises(StackError, match="deploy again"):
        membership(release, live)
    (live / "plan.json").write_text(json.dumps({"host": "a", "engines": [{"name": "engine-toy-0"}]}))
    assert membership(release, live) == {
        "host": "a", "roles": ["engines"], "engines": ["engine-toy-0"], "hosts": roles
    }  # fmt: skip


def test_the_list_marks_the_one_that_runs_and_one_without_a_record() -> None:
    found = [records.summary(each, "b") for each in (record("b", 2), record("a", 1))]
    lines = release_table(found, "b")[0].splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["*", "a"]
    found = [records.summary(record("a", 1), "elsewhere")]
    assert "no record" in release_table(found, "elsewhere")[1]
