"""A replica drained on every gateway of a fleet, by the playbook itself on stand-ins for the hosts' programs."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from plays.playing import ANSIBLE
from plays.standins import NEW, Fleet, Ran


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


def drain(fleet: Fleet, fails: dict[str, str] | None = None, **variables: object) -> Ran:
    look, tell = ({**one, "become": False} for one in yaml.safe_load((ANSIBLE / "playbooks/drain.yml").read_text()))
    return fleet.play([{**look, "hosts": "deploy_fleet"}, tell], fails, drain_replica="e-a", **variables)


def test_the_last_gateway_waits_for_what_the_others_had_sent(fleet: Fleet) -> None:
    ran = drain(fleet)
    assert ran.code == 0, ran.out
    assert [call.split()[-1] for call in ran.named("drain.py")] == ["--timeout=0", "--timeout=600"]
    ran = drain(fleet, drain_undo=True)
    assert ran.code == 0, ran.out
    assert {call.partition(" ")[2] for call in ran.named("drain.py")} == {f"{NEW} drain.py e-a --undo"}


def test_a_gateway_that_refuses_ends_it_and_says_where_it_was_done(fleet: Fleet) -> None:
    ran = drain(fleet, {"drain.py e-a --timeout=600": "error: no other replica serves toy"})
    assert ran.code != 0
    assert "error: no other replica serves toy" in ran.told
    first = ran.named("drain.py")[0].split(":")[0]
    assert f"Done on: {first}." in ran.told
    ran = drain(fleet, {"drain.py e-a --timeout=0": "error: no other replica serves toy"})
    assert (ran.code != 0, len(ran.named("drain.py"))) == (True, 1)
    assert "Done on: no gateway." in ran.told


def test_a_host_that_is_alone_is_refused(fleet: Fleet) -> None:
    fleet.says["b"]["releases.py"]["fleet"] = None
    ran = drain(fleet)
    assert ran.code != 0
    assert "b is of no fleet" in ran.told
    assert ran.named("drain.py") == []
