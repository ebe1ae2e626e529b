"""A fleet as an operator treats it, under load: deployed, again, changed, killed, hurt. In this order."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import datetime
from pathlib import Path

import pytest

from deploy.bed import GENTLY, STATE, StackHost, flags
from fleet.fleet import ENGINES, ROLES, SEED, Fleet
from provision.bed.playbooks import Run, good
from waiting import until

AWAY = Path(__file__).parent / "away.yml"


def connects(host: StackHost, address: str, port: int) -> bool:
    code = f"import socket; socket.create_connection(('{address}', {port}), 3)"
    return host.run("python3", "-c", code).code == 0


def engine_port(fleet: Fleet, host: str = "gpu-a") -> int:
    plan = json.loads(fleet.hosts[host].read(f"{STATE}/live/plan.json"))
    return int(next(one["port"] for one in plan["fleet"]["openings"] if one["service"].startswith("engine-")))


def own_start(host: StackHost, engine: str) -> float:
    """Seconds from the start of an engine's container to vLLM's own word that it serves."""
    container, started = host.containers()[engine]
    logged = host.sh(f"docker logs --timestamps {container} 2>&1 | grep --max-count=1 'Application startup complete'")
    return (datetime.fromisoformat(logged.split()[0]) - datetime.fromisoformat(started)).total_seconds()


def own_stop(host: StackHost, engine: str, since: float) -> float:
    """Seconds that an engine took to end, once it was told to."""
    told = host.sh(
        f"docker events --since {since:.0f} --until {time.time():.0f} --filter event=kill --filter event=die"
        f" --filter label=com.docker.compose.service={engine} --format '{{{{.TimeNano}}}}'"
    )
    times = [int(line) for line in told.split()]
    return (max(times) - min(times)) / 1e9


def overhead(fleet: Fleet, run: Run, began: float) -> str:
    """What a deploy that replaced both engines took for each beside vLLM's own stop and start."""
    where = [(fleet.hosts[host], engine) for host, engine in zip(("gpu-a", "gpu-b"), ENGINES, strict=True)]
    own = [own_stop(host, engine, began) + own_start(host, engine) for host, engine in where]
    spent = run.took("Take the replicas out of the pools of every gateway", "which asks them first")
    shown = ", ".join(f"{seconds:.0f}" for seconds in own)
    return f"a replica, without vLLM's own stop and start ({shown} s): {(spent - sum(own)) / 2:.1f} s"


def test_without_written_places_nothing_is_deployed(fleet: Fleet) -> None:
    run = fleet.deploy()
    assert run.code != 0
    assert "make place" in run.failures()
    assert all(parts == {} for parts in fleet.containers().values())


def test_a_first_deploy_serves_at_the_floating_address(fleet: Fleet) -> None:
    fleet.place()
    run = good(fleet.deploy())
    print(f"first deploy of {len(ROLES)} hosts: {run.seconds:.0f} s, n=1")
    parts = fleet.containers()
    assert [name for name in ROLES for part in parts[name] if part in ENGINES] == ["gpu-a", "gpu-b"]
    assert all(fleet.hosts[name].completion() == 200 for name in ("gw-a", "gw-b"))
    with fleet.load("nothing changes"):
        pass


def test_secrets_are_the_same_and_only_where_they_are_needed(fleet: Fleet) -> None:
    keys = {name: fleet.hosts[name].read(f"{STATE}/secrets/engine-key.json") for name in ROLES}
    assert len(set(keys.values())) == 1
    where = {name: fleet.hosts[name].sh(f"cd {STATE}; ls secrets/api-keys tls | xargs") for name in ROLES}
    assert all("default" not in where[name] and ".key" not in where[name] for name in ("gpu-a", "gpu-b"))
    assert where["gw-a"] == where["gw-b"]
    value = json.loads(keys["gpu-a"])["sends"]
    run = good(fleet.deploy("-vvv", "--diff"))
    assert value not in run.text + str(run.tasks)
    for host in fleet.members():
        assert host.run("sh", "-c", f"journalctl --no-pager | grep -F {value}").out == ""


def test_the_second_run_changes_and_restarts_nothing(fleet: Fleet) -> None:
    before = fleet.containers()
    run = good(fleet.deploy())
    print(f"second deploy: {run.seconds:.0f} s, n=1")
    assert run.changed() == []
    assert fleet.restarted(before) == []


def test_engines_answer_gateways_and_no_stranger_after_reload_and_restart_too(fleet: Fleet) -> None:
    address, port = fleet.hosts["gpu-a"].address, engine_port(fleet)

    def right() -> bool:
        allowed = all(connects(fleet.hosts[name], address, port) for name in ("gw-a", "gw-b"))
        return allowed and not any(connects(fleet.hosts[name], address, port) for name in ("gpu-b", "stranger"))

    assert right()
    fleet.hosts["gpu-a"].sh("systemctl reload vllm-onprem-firewall")
    assert right()
    fleet.hosts["gpu-a"].sh("systemctl restart docker")
    time.sleep(5)
    assert not connects(fleet.hosts["stranger"], address, port)
    fleet.hosts["gpu-a"].boot()
    # before anything else of the boot is waited for
    assert not connects(fleet.hosts["stranger"], address, port)
    until(right, 600, "open to the gateways again")
    good(fleet.deploy())


def test_a_changed_flag_replaces_one_replica_after_the_other_and_no_request_fails(fleet: Fleet) -> None:
    before = fleet.containers()
    looked = good(fleet.deploy("--check", "--diff", stack=flags(*SEED)))
    assert fleet.restarted(before) == []
    assert "replace" in str(looked.tasks)
    began = time.time()
    with fleet.load("changed flag", **GENTLY) as load:
        run = good(fleet.deploy(stack=flags(*SEED)))
    print(f"  {run.seconds:.0f} s; {overhead(fleet, run, began)}")
    assert fleet.restarted(before) == ["gpu-a engine-toy-0", "gpu-b engine-toy-1"]
    assert load.failures("whole") + load.failures("stream") == []


def test_a_second_deploy_meanwhile_is_refused(fleet: Fleet) -> None:
    other: list[Run] = []
    thread = threading.Thread(target=lambda: other.append(fleet.deploy(stack=flags("--seed", "8"))))
    thread.start()
    center = fleet.hosts["gw-b"]
    while center.run("test", "-e", "/var/lib/vllm-onprem/stack/deploy-lease.json").code:
        assert thread.is_alive()
        time.sleep(0.5)
    refused = fleet.deploy(stack=flags("--seed", "8"))
    thread.join()
    assert refused.code != 0
    assert "Another deploy of this fleet" in refused.failures()
    good(other[0])


@pytest.mark.parametrize(
    ("moment", "seed"),
    [
        ("Take the replicas out of the pools of every gateway", "11"),
        ("Finish its requests, then change it, and have it answer", "12"),
        ("Put them back into the pools of every gateway, which asks them first", "13"),
        ("Apply the host's tree and prove it", "14"),
    ],
)
def test_a_controller_killed_at_some_moment_is_gone_on_with(fleet: Fleet, moment: str, seed: str) -> None:
    wanted = flags("--seed", seed)
    with fleet.load(f"controller killed: {moment}", **GENTLY) as load:
        killed = fleet.deploy(stack=wanted, kill_at=moment)
        assert killed.code == -9
        good(fleet.deploy(stack=wanted))
    assert load.failures("whole") + load.failures("stream") == []
    assert good(fleet.deploy(stack=wanted)).changed() == []


def test_a_replica_that_does_not_come_up_ends_the_deploy_and_the_rest_is_left_alone(fleet: Fleet) -> None:
    good(fleet.deploy(stack=flags(*SEED)))
    before = fleet.containers()
    # accepted by vLLM's parser, and refused when the weights are loaded
    broken = flags(*SEED, "--hf-overrides", '{"num_hidden_layers": 99}')
    with fleet.load("a replica that does not come up", **GENTLY) as load:
        run = fleet.deploy(stack=broken)
    assert run.code != 0
    told = re.sub(r"\s+", " ", run.failures())
    assert "engine-toy-0 was put back as it was before and answers." in told
    assert "Not touched: engine-toy-1" in told
    assert fleet.restarted(before) == ["gpu-a engine-toy-0"]
    assert load.failures("whole") + load.failures("stream") == []
    assert good(fleet.deploy(stack=flags(*SEED))).code == 0


def one(releases: dict[str, str]) -> str:
    """The release that all hosts run."""
    (found,) = set(releases.values())
    return found


def test_a_rollback_brings_every_host_back_and_no_request_fails(fleet: Fleet) -> None:
    good(fleet.deploy(stack=flags(*SEED)))
    old = one(fleet.runs())
    good(fleet.deploy(stack=flags("--seed", "21")))
    new, before = one(fleet.runs()), fleet.containers()
    looked = good(fleet.rollback("--check"))
    assert (one(fleet.runs()), fleet.restarted(before)) == (new, [])
    assert "replace" in str(looked.tasks)
    with fleet.load("rollback", **GENTLY) as load:
        run = good(fleet.rollback())
    print(f"  {run.seconds:.0f} s, n=1")
    assert one(fleet.runs()) == old
    assert fleet.restarted(before) == ["gpu-a engine-toy-0", "gpu-b engine-toy-1"]
    assert load.failures("whole") + load.failures("stream") == []
    good(fleet.rollback())
    assert one(fleet.runs()) == new, "back to where the first rollback came from"


def test_a_rollback_after_a_deploy_that_was_killed_goes_to_what_the_fleet_ran(fleet: Fleet) -> None:
    ran = one(fleet.runs())
    with fleet.load("rollback of a deploy that was killed", **GENTLY) as load:
        killed = fleet.deploy(
            stack=flags("--seed", "22"), kill_at="Put them back into the pools of every gateway, which asks them first"
        )
        assert killed.code == -9
        good(fleet.rollback())
    assert one(fleet.runs()) == ran
    assert load.failures("whole") + load.failures("stream") == []
    plans = [fleet.hosts[name].read(f"{STATE}/live/compose.yaml") for name in ("gpu-a", "gpu-b")]
    assert not any('"22"' in text for text in plans)


def test_a_rollback_is_refused_as_a_whole_where_one_host_has_lost_what_it_needs(fleet: Fleet) -> None:
    before, lost = fleet.containers(), fleet.hosts["gpu-b"]
    models = f"{STATE.rsplit('/', 2)[0]}/models"
    lost.sh(f"mv {models} /var/lib/vllm-onprem/aside")
    try:
        run = fleet.rollback()
    finally:
        lost.sh(f"mv /var/lib/vllm-onprem/aside {models}")
    assert run.code != 0
    assert "is not on this host any more" in run.failures()
    assert fleet.restarted(before) == []


def test_every_host_keeps_the_same_releases(fleet: Fleet) -> None:
    before = fleet.containers()
    for availability in (99.9, 99.8, 99.7):
        stack = {**flags(*SEED), "observability": {"slo": {"availability": availability}}}
        good(fleet.deploy(stack=stack, stack_keep_releases=2))
    kept = {name: fleet.hosts[name].sh("ls /opt/vllm-onprem/releases | grep json").split() for name in ROLES}
    assert len(kept["gw-b"]) == 2
    assert all(names == kept["gw-b"] for names in kept.values())
    # what only Prometheus reads is no reason to touch anything else
    assert fleet.restarted(before) == []


def test_a_new_model_revision_comes_replica_by_replica_and_no_request_fails(fleet: Fleet) -> None:
    for name in ("gpu-a", "gpu-b"):
        models = f"{STATE.rsplit('/', 2)[0]}/models"
        fleet.hosts[name].sh(f"mkdir -p /srv/models && cp -a {models}/toy-llama /srv/models/revision-2")
    before = fleet.containers()
    with fleet.load("new model revision", **GENTLY) as load:
        good(fleet.deploy(stack=flags(*SEED, source={"path": "/srv/models/revision-2"})))
    assert fleet.restarted(before) == ["gpu-a engine-toy-0", "gpu-b engine-toy-1"]
    assert load.failures("whole") + load.failures("stream") == []


def test_a_drained_replica_gets_no_request_from_any_gateway_until_it_is_put_back(fleet: Fleet) -> None:
    with fleet.load("a replica drained on all gateways, and put back", **GENTLY) as load:
        fleet.controller.make("drain", "REPLICA=engine-toy-0")
        assert fleet.serves("engine-toy-0") == []
        fleet.controller.make("undrain", "REPLICA=engine-toy-0")
    assert load.failures("whole") + load.failures("stream") == []
    assert fleet.serves("engine-toy-0") == ["gw-a", "gw-b"]


def test_a_host_leaves_for_another_driver_and_comes_back_and_no_request_fails(fleet: Fleet) -> None:
    before, ran = fleet.containers(), fleet.runs()
    host = fleet.hosts["gpu-a"].name
    with fleet.load("a host out of service for its driver, and back", **GENTLY) as load:
        good(fleet.controller.play(str(AWAY), fleet.members(), "-e", f"away={host}"))
    assert load.failures("whole") + load.failures("stream") == []
    assert {line.split()[0] for line in fleet.restarted(before)} == {"gpu-a"}
    assert fleet.runs() == ran
    assert fleet.serves("engine-toy-0") == ["gw-a", "gw-b"]


def test_a_replica_that_is_not_wanted_any_more_leaves_the_gateways_first(fleet: Fleet) -> None:
    fleet.place(flags(*SEED, replicas=1))
    with fleet.load("a replica less", **GENTLY) as load:
        good(fleet.deploy(stack=flags(*SEED, replicas=1)))
    assert load.failures("whole") + load.failures("stream") == []
    assert sum(part in ENGINES for name in ROLES for part in fleet.hosts[name].containers()) == 1
    # and now it is the only one
    before = fleet.containers()
    run = fleet.deploy(stack=flags("--seed", "9", replicas=1))
    assert run.code != 0
    assert "no answers for about" in run.failures()
    assert fleet.restarted(before) == []
