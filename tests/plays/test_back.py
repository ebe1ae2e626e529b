"""The rollback of a fleet, by Ansible itself on stand-ins for the programs of the hosts: where to, in which order, and
what is refused before anything is touched. Needs no Docker.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plays.playing import at_once
from plays.standins import NEW, OLD, ROLES, Fleet, Ran, plays_of


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def back(fleet: Fleet, fails: dict[str, str] | None = None, **variables: str) -> Ran:
    return fleet.play(plays_of("rollback_fleet"), fails, **variables)


def test_the_fleet_goes_back_replica_by_replica_then_gateways_then_prometheus(fleet: Fleet) -> None:
    ran = back(fleet)
    assert ran.code == 0, ran.out
    assert f"from {NEW} to {OLD}" in ran.told
    # each host is asked whether it can, then the release itself what it wants there, before the first is touched
    asked = ran.named("rollback.py")
    assert asked[0] == f"front: {NEW} rollback.py --dry-run --json --noted {NEW}"
    assert sorted(asked[1:]) == [f"{host}: {NEW} rollback.py --dry-run --json --to={OLD}" for host in sorted(ROLES)]
    assert json.loads((fleet.folder / "heard").read_text()) == [{"of": host} for host in sorted(ROLES)]
    ready = {f"{host}: {OLD} fleet_host.py prepare --again --host={host}" for host in ROLES}
    prepared = [call for call in ran.named("fleet_host.py") if "prepare" in call]
    assert {call.replace(f"--host={call.split(':')[0]} prepare --again", f"prepare --again --host={call.split(':')[0]}")
            for call in prepared} == ready  # fmt: skip
    engines = [call for call in ran.named("pool.py", "fleet_host.py") if " out " in call or " e-" in call]
    assert at_once(engines) == [
        f"front second: {NEW} pool.py out --seconds=60 e-a=1",
        f"a: {OLD} fleet_host.py --host=a replace e-a",
        f"front second: {NEW} pool.py back e-a",
        f"front second: {NEW} pool.py out --seconds=60 e-b=1",
        f"b: {OLD} fleet_host.py --host=b replace e-b",
        f"front second: {NEW} pool.py back e-b",
    ]
    applied = ran.named("activate.py")
    assert {call.split(":")[0] for call in applied[:2]} == {"a", "b"}
    assert [call.split(":")[0] for call in applied[2:]] == ["second", "front"]
    assert all(f" {OLD} " in call and "--rollback" in call and "--made" not in call for call in applied)
    assert not (fleet.folder / "state/deploy-lease.json").exists()


@pytest.mark.parametrize(
    ("fails", "says"),
    [
        ({f"b: {NEW} rollback.py": "images: x:1 is not on this host any more"}, "b: images: x:1 is not on this host"),
        ({f"front: {NEW} rollback.py --dry-run --json --noted": "no earlier release"}, "no earlier release"),
        ({f"front: {OLD} fleet_steps.py": "no answers for about 42 s"}, "no answers for about 42 s"),
        ({f"a: {OLD} fleet_host.py": "a key is gone"}, "a: a key is gone Nothing was changed."),
    ],
)
def test_what_one_host_cannot_do_is_done_by_none(fleet: Fleet, fails: dict[str, str], says: str) -> None:
    ran = back(fleet, fails)
    assert ran.code != 0
    assert says in ran.told
    assert ran.named("pool.py", "activate.py") == []
    assert [call for call in ran.named("fleet_host.py") if " tell " not in call] == []


def test_a_host_of_another_version_is_refused(fleet: Fleet) -> None:
    del fleet.says["a"]["releases.py"]["fleet"]
    ran = back(fleet)
    assert ran.code != 0
    assert "a: it runs no release of a fleet that records were kept of" in ran.told
    assert ran.named("rollback.py") == []


def test_what_a_cut_off_deploy_has_begun_is_said_and_a_name_is_handed_on(fleet: Fleet) -> None:
    fleet.says["a"]["releases.py"]["cut_off"] = "half"
    ran = back(fleet, {"fleet_steps.py": "enough"}, rollback_to="0l")
    assert ran.named("rollback.py")[0] == f"front: {NEW} rollback.py --dry-run --json --to=0l --noted {NEW} half"


def test_a_replica_that_fails_ends_it_and_says_how_to_go_on(fleet: Fleet) -> None:
    ran = back(fleet, {"replace e-b": "it does not"})
    assert ran.code != 0
    assert f"`make rollback TO={OLD}` goes on" in ran.told
    assert "changed by this run, and serving: e-a." in ran.told
    assert ran.named("activate.py") == []
    assert [call for call in ran.calls if "pool.py back e-b" in call] != []


def test_a_deploy_keeps_the_releases_of_the_host_of_prometheus_everywhere(fleet: Fleet) -> None:
    """What is played of a deploy, too, when its hosts are ready."""
    release = {"id": OLD, "name": "s", "state": str(fleet.folder / "state/s"), "mounts": [], "made": {"who": "alice"}}
    rendered = {"stdout": json.dumps(fleet.says["front"]["fleet_steps.py"])}
    knows = {"__stack_release": release, "__fleet_rendered": rendered}
    parts = ("known", "hold", "prepare")
    roles = {"known": "stack"}
    first = {
        "hosts": "deploy_fleet",
        "gather_facts": False,
        "tasks": [
            {"ansible.builtin.set_fact": knows},
            *({"ansible.builtin.group_by": {"key": f"fleet_{role}"}, "when": f"inventory_hostname in {names}"}
              for role, names in _by_role().items()),
            *({"ansible.builtin.import_role": {"name": roles.get(part, "fleet"), "tasks_from": part}}
              for part in parts),
        ],
    }  # fmt: skip
    (fleet.folder / "hosts.yaml").write_text(json.dumps({"hosts": [{"name": n, "roles": r} for n, r in ROLES.items()]}))
    ran = fleet.play(
        [first, *plays_of("apply_fleet")], stack_hosts_file=str(fleet.folder / "hosts.yaml"), stack_keep_releases=3
    )
    assert ran.code == 0, ran.out
    kept = [call for call in ran.named("activate.py") if "--keep=3" in call]
    assert [call.split(":")[0] for call in kept] == ["front"]
    assert all('--made={"who": "alice"}' in call for call in ran.named("activate.py"))
    forgot = [call for call in ran.named("fleet_host.py") if "forget" in call]
    assert {call.split(":")[0] for call in forgot} == set(ROLES)
    assert all(f"--stay={OLD},{NEW}" in call for call in forgot)


def _by_role() -> dict[str, list[str]]:
    roles = ("engines", "gateway", "observability")
    return {role: [host for host, own in ROLES.items() if role in own] for role in roles}
