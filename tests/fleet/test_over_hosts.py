"""A model that takes two hosts, as one replica: deployed, a part killed, replaced. Long: make test-fleet."""

from __future__ import annotations

from functools import partial
from typing import Any

from deploy.bed import flags
from fleet.fleet import Fleet
from provision.bed.playbooks import good
from waiting import until

LEADER, FOLLOWER = ("gpu-a", "engine-toy-0"), ("gpu-b", "engine-toy-0.1")


def over_hosts(*more: str) -> dict[str, Any]:
    """The stack file's model in two stages; not eager, which a replica over hosts is refused on the CPU."""
    return flags(replicas=1, nnodes=2, pipeline_parallel_size=2, extra_args=list(more))


def parts(fleet: Fleet) -> dict[tuple[str, str], tuple[str, str]]:
    """(host, part) -> its container and when that was started."""
    running = fleet.containers()
    return {
        (host, name): found for host in ("gpu-a", "gpu-b") for name, found in running[host].items() if "engine" in name
    }


def all_anew(fleet: Fleet, before: dict[tuple[str, str], tuple[str, str]]) -> bool:
    now = parts(fleet)
    return all(now.get(one, before[one]) != before[one] for one in before)


def answers(fleet: Fleet) -> bool:
    return all(fleet.hosts[name].completion() == 200 for name in ("gw-a", "gw-b"))


def test_it_is_deployed_as_one_and_answers(fleet: Fleet) -> None:
    fleet.place(over_hosts())
    run = good(fleet.deploy(stack=over_hosts(), stack_allow_downtime=True))
    print(f"a replica over two hosts deployed: {run.seconds:.0f} s, n=1")
    assert parts(fleet).keys() == {LEADER, FOLLOWER}
    assert answers(fleet)
    assert good(fleet.deploy(stack=over_hosts())).changed() == []


def test_a_part_that_is_killed_brings_all_of_it_down_and_up_again(fleet: Fleet) -> None:
    for host, name in (FOLLOWER, LEADER):
        before = parts(fleet)
        fleet.hosts[host].sh(f"docker exec {before[host, name][0]} python3 -c 'import os; os.kill(-1, 9)'")
        took = until(partial(all_anew, fleet, before), 600, "both parts started anew")
        back = until(lambda: answers(fleet), 600, "an answer through both gateways")
        print(f"{name} killed: both parts anew after {took:.0f} s, answers after {took + back:.0f} s, n=1")


def test_it_is_replaced_as_one_and_that_gap_is_for_a_person_to_want(fleet: Fleet) -> None:
    before = parts(fleet)
    refused = fleet.deploy(stack=over_hosts("--seed", "7"))
    assert refused.code != 0
    assert "no answers for about" in refused.failures()
    assert parts(fleet) == before
    good(fleet.deploy(stack=over_hosts("--seed", "7"), stack_allow_downtime=True))
    now = parts(fleet)
    assert now.keys() == before.keys()
    assert all(now[one][0] != before[one][0] for one in before)
    assert answers(fleet)
