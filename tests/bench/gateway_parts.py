"""What bench-gateway measures: a stub engine, HAProxy alone before it, and the gateway that the project renders.

One Compose project of its own. The gateway's containers come from the project's compose/edge.yaml and a tree that the
project renders for a one-model stack; the stub has the names of its two engines on the network `engines`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
import urllib3
import yaml
from docker.models.containers import Container

from stack import api_keys, certificates
from stack.config.folders import state_dir
from stack.config.schema import StackConfig
from stack.console import say
from stack.docker_host import address, connect, containers
from stack.errors import StackError
from stack.gateway_state import GatewayState
from stack.hardware import Host
from stack.images.choice import built_references
from stack.images.pins import load_pins
from stack.images.store import ensure
from stack.inputs import ROOT
from stack.plan.make import make_plan
from stack.plan.types import Plan
from stack.render import render
from stack.secrets import engine_key
from stack.secrets.copies import copies_of, hand_out
from stack.tree import write_tree

MODEL, PROJECT, CHAT = "toy", "vllm-onprem-bench", "/v1/chat/completions"
# of the containers that clients speak to: the network on which the host reaches them
ADDRESSES = {"stub": "engines", "alone": "engines", "nginx": "edge"}
# the shape and about the size of a short answer of vLLM's
ANSWER = (
    '{"id":"chatcmpl-0123456789abcdef","object":"chat.completion","created":1700000000,"model":"toy","choices":'
    '[{"index":0,"message":{"role":"assistant","content":"Fourteen words of a fixed answer, so that nothing but the'
    ' way there is measured."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":512,'
    '"completion_tokens":20,"total_tokens":532}}'
)
COMMON = """\
global
    maxconn 8192
defaults
    mode http
    timeout connect 3s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
"""
LISTED = json.dumps({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
# vllm-router cache-aware asks both engines for the prompt's tokens before each request; without an answer it would
# balance by load only, and be measured at something else than its work
TOKENS = json.dumps({"request_id": "chatcmpl-0123456789abcdef", "token_ids": list(range(512)), "model": MODEL,
                     "sampling_params": {"max_tokens": 20}})  # fmt: skip
ANSWERS = (
    f"status 200 content-type application/json string '{TOKENS}' if {{ path_end /render }}",
    f"status 200 content-type application/json string '{ANSWER}' if METH_POST",
    f"status 200 content-type application/json string '{LISTED}' if {{ path /v1/models }}",
    "status 200 if { path /health }",
    "status 404",
)
# two ports are two engines to a peer that is given addresses
STUB = "\n    ".join(
    [
        f"{COMMON}frontend in_stub",
        "bind :8000",
        "bind :8001",
        *(f"http-request return {text}" for text in ANSWERS),
        "\n",
    ]
)
ALONE = f"""\
{COMMON}listen in_alone
    bind :8000
    balance leastconn
    server first engine-toy-0:8000
    server second engine-toy-1:8000
"""


@dataclass(frozen=True)
class Parts:
    """stub, second: URLs of the stub (two ports, one program). alone: of HAProxy alone; gateway: of nginx."""

    stub: str
    second: str
    alone: str
    gateway: str
    key: str


@contextmanager
def parts(scratch: Path) -> Iterator[Parts]:
    """Start them and, whatever happens, remove them: containers and networks."""
    client = connect()
    references = built_references(ROOT, load_pins(ROOT), "cpu")
    needed = {role: references[role] for role in ("nginx", "haproxy")}
    ensure(needed, "build", ROOT, say, client)
    plan = _plan(scratch, references)
    tree = state_dir(_config(scratch), ROOT) / "live"
    key = _tree(plan, tree)
    for name, text in (("stub", STUB), ("alone", ALONE)):
        (scratch / name).mkdir()
        (scratch / name / "haproxy.cfg").write_text(text)
    (scratch / "bench.yaml").write_text(yaml.safe_dump(_services(scratch, references["haproxy"])))
    command = [str(Path(sysconfig.get_path("scripts")) / "docker-compose"), "--project-name", PROJECT,
               "--project-directory", str(tree), "-f", str(tree / "compose/edge.yaml"),
               "-f", str(scratch / "bench.yaml")]  # fmt: skip
    try:
        _compose([*command, "up", "--detach"])
        found = containers(client, PROJECT)
        at = {name: _address(found[name], network) for name, network in ADDRESSES.items()}
        result = Parts(f"http://{at['stub']}:8000", f"http://{at['stub']}:8001", f"http://{at['alone']}:8000",
                       f"https://{at['nginx']}:8443", key)  # fmt: skip
        for url in (result.stub, result.alone, result.gateway):
            _wait(url, key)
        yield result
    finally:
        _compose([*command, "down", "--volumes", "--timeout", "5"])


def _config(scratch: Path) -> StackConfig:
    return StackConfig.model_validate({
        "name": PROJECT,
        "device": "cpu",
        "models": [{"served_model_name": MODEL, "source": {"toy": True}, "replicas": 2}],
        # limits are in force, and out of the way: the bench is one client with all the load
        "gateway": {"listen": "127.0.0.1", "https_port": 38444, "requests_per_second": 100_000, "concurrency": 1000},
        "paths": {"state": str(scratch / "state"), "build": str(scratch / "build")},
    })  # fmt: skip


def _plan(scratch: Path, references: dict[str, str]) -> Plan:
    return make_plan(_config(scratch), Host(), references, ROOT, images_built=True)


def _tree(plan: Plan, tree: Path) -> str:
    """Write what `make up` would have written; the API key."""
    state, names = Path(plan.state_dir), plan.gateway["api_keys"]
    api_keys.ensure_keys(state, names)
    pair, _ = certificates.ensure(state, StackConfig.model_validate({"models": [_ANY_MODEL]}).gateway, ROOT)
    certificates.private_key_file(state, pair).chmod(0o444)  # nginx runs as a user of its own
    keys = engine_key.ensure(state)
    hand_out(state, copies_of(keys), plan.images["nginx"], connect())
    kept = GatewayState(api_keys.key_hashes(state, names), {}, pair, frozenset(), *engine_key.names(keys))
    write_tree(tree, render(plan, kept, ROOT))
    return api_keys.key_file(state, names[0]).read_text().strip()


_ANY_MODEL = {"served_model_name": MODEL, "source": {"toy": True}}


def _services(scratch: Path, haproxy: str) -> dict[str, object]:
    def service(name: str, aliases: list[str]) -> dict[str, object]:
        return {
            "image": haproxy,
            "user": "99:99",
            "init": True,
            "read_only": True,
            "cap_drop": ["ALL"],
            "entrypoint": ["haproxy"],
            "command": ["-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"],
            "volumes": [f"{scratch / name}:/etc/haproxy:ro"],
            "networks": {"engines": {"aliases": aliases}},
        }

    return {
        "services": {
            "stub": service("stub", ["engine-toy-0", "engine-toy-1"]),
            # HAProxy looks names up once, at its start
            "alone": {**service("alone", []), "depends_on": ["stub"]},
        },
        "networks": {"edge": {}, "inner": {"internal": True}, "engines": {"internal": True}},
    }


def _address(container: Container, network: str) -> str:
    found = address(container, network)
    if not found:
        raise StackError(f"{container.name} ended: {container.logs(tail=8).decode(errors='replace')}")
    return found


def _compose(command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise StackError(f"{' '.join(command[-3:])}: {done.stderr[-600:]}")


def _wait(url: str, key: str, seconds: float = 60.0) -> None:
    urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    deadline = time.monotonic() + seconds
    body = {"model": MODEL, "messages": [{"role": "user", "content": "ready?"}]}
    while True:
        try:
            answer = requests.post(
                url + CHAT, json=body, headers={"authorization": f"Bearer {key}"}, verify=False, timeout=5
            )
            if answer.status_code == 200:
                return
            seen = f"{answer.status_code} {answer.text[:200]}"
        except requests.RequestException as error:
            seen = str(error)
        if time.monotonic() > deadline:
            raise StackError(f"{url} does not serve: {seen}")
        time.sleep(0.3)
