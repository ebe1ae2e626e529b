"""The stack of a host, as `make deploy` left it: parts, ports, files and their modes, and completions."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hosts.conftest import CURRENT, STACK_ROOT

ENGINE_UID, NGINX_UID, HAPROXY_UID = 2000, 101, 99


def test_every_part_runs_and_none_is_unhealthy(plan: dict[str, Any], containers: dict[str, Any]) -> None:
    parts = plan["fleet"]["services"] if plan["fleet"] else ["nginx", "haproxy", "haproxy-standby", "prometheus"]
    assert {*parts, *(engine["name"] for engine in plan["engines"])} <= containers.keys()
    conditions = {name: each["State"].get("Health", each["State"])["Status"] for name, each in containers.items()}
    assert {name: now for name, now in conditions.items() if now not in ("running", "healthy")} == {}


def test_the_ports_of_the_plan_listen_and_no_container_publishes_another(
    host: Any, plan: dict[str, Any], containers: dict[str, Any]
) -> None:
    openings = plan["fleet"]["openings"] if plan["fleet"] else []
    entries = [*plan["published"], *openings]
    wanted = {(entry["service"], entry["address"], str(entry["port"])) for entry in entries}
    published = {
        (service, binding["HostIp"], binding["HostPort"])
        for service, each in containers.items()
        for bindings in (each["HostConfig"]["PortBindings"] or {}).values()
        for binding in bindings
    }
    assert published == wanted
    for _, address, port in wanted:
        assert host.socket(f"tcp://{address}:{port}").is_listening


def test_engines_have_no_way_out(plan: dict[str, Any], containers: dict[str, Any], host: Any) -> None:
    """Those of a fleet have one more network, which begins nothing: test_fleet_host.py."""
    own = f"{plan['project']}_engines"
    allowed = {own, *([f"{plan['project']}_fleet"] if plan["fleet"] else [])}
    for engine in plan["engines"]:
        networks = set(containers[engine["name"]]["NetworkSettings"]["Networks"])
        assert own in networks <= allowed
        assert host.check_output(f"docker network inspect --format '{{{{.Internal}}}}' {own}") == "true"


def test_secrets_are_their_readers_alone(host: Any, state: str, roles: list[str]) -> None:
    for folder in ("secrets", "secrets/api-keys"):
        assert (host.file(f"{state}/{folder}").uid, host.file(f"{state}/{folder}").mode) == (0, 0o700)
    owners = {
        "secrets/api-keys": (0, {"gateway", "observability"}),
        "secrets/engine": (ENGINE_UID, {"engines"}),
        "secrets/haproxy": (HAPROXY_UID, {"gateway"}),
    }
    for folder, (uid, readers) in owners.items():
        if not readers & set(roles):
            continue
        names = host.file(f"{state}/{folder}").listdir()
        assert names
        for name in names:
            file = host.file(f"{state}/{folder}/{name}")
            assert (name, file.uid, file.mode) == (name, uid, 0o400)
    for name in host.file(f"{state}/tls").listdir() if "gateway" in roles else ():
        file = host.file(f"{state}/tls/{name}")
        assert (file.uid, file.mode) == (NGINX_UID, 0o400 if name.endswith(".key") else 0o644)


def test_no_key_is_in_the_applied_files(host: Any, state: str) -> None:
    for name in host.file(f"{state}/secrets/api-keys").listdir():
        found = host.run(f"grep -rFf {state}/secrets/api-keys/{name} {state}/live {state}/shipped {CURRENT}/")
        assert (name, found.rc) == (name, 1)


def test_engines_cannot_write_to_their_model(host: Any, plan: dict[str, Any], containers: dict[str, Any]) -> None:
    for engine in plan["engines"]:
        mounts = {mount["Destination"]: mount["RW"] for mount in containers[engine["name"]]["Mounts"]}
        assert mounts["/model"] is False
        writable = host.check_output(f"find -L {engine['model_dir']} -perm /002 -o -uid {ENGINE_UID}")
        assert writable == ""


def test_the_applied_files_are_those_of_the_manifest(host: Any, state: str) -> None:
    listing = json.loads(host.file(f"{state}/live/manifest.json").content_string)["files"]
    assert listing
    for entry in listing:
        file = host.file(f"{state}/live/{entry['path']}")
        assert (entry["path"], hashlib.sha256(file.content).hexdigest()) == (entry["path"], entry["sha256"])


def test_it_starts_at_boot(host: Any, state: str) -> None:
    assert state
    assert host.service("vllm-onprem-stack").is_enabled


def test_it_answers_completions(host: Any, state: str) -> None:
    assert state
    done = host.run(f"{CURRENT}/.venv/bin/python {CURRENT}/scripts/smoke.py {CURRENT}/stack.yaml")
    assert done.rc == 0, done.stdout + done.stderr


def test_the_release_that_runs_is_recorded_with_images_that_are_here(host: Any, plan: dict[str, Any]) -> None:
    release = host.file(CURRENT).linked_to.rsplit("/", 1)[1]
    record = json.loads(host.file(f"{STACK_ROOT}/releases/{release}.json").content_string)
    assert record["id"] == release
    assert record["applied"]
    here = set(host.check_output("docker images --all --no-trunc --quiet").split())
    assert set(record["images"].values()) <= here
    assert {engine["image"] for engine in plan["engines"]} <= record["images"].keys()
