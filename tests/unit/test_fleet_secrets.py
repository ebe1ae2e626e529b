"""Who gets which secret of a fleet, and that no host has to make one of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stack.errors import StackError
from stack.plan.gateway import PROBE as PROBE_CLIENT
from stack.secrets import engine_key
from stack.secrets.copies import copies_of
from stack.secrets.handed import for_roles, handed_to, is_encrypted, own_files, require
from unit import given
from unit.conftest import WriteStack
from unit.test_scripts import run

HOSTS = """
hosts:
  - {name: front, roles: [gateway], address: 10.0.0.1}
  - {name: watch, roles: [observability], address: 10.0.0.2}
  - {name: a, roles: [engines], address: 10.0.0.11}
"""
KEY, PROBE = "secrets/engine-key.json", f"secrets/api-keys/{PROBE_CLIENT}"


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        (["engines"], [KEY]),
        (["observability"], [KEY, PROBE]),
        (["gateway"], [KEY, "secrets/api-keys/search", PROBE, "tls/p.crt", "tls/p.key"]),
        (["engines", "gateway"], [KEY, "secrets/api-keys/search", PROBE, "tls/p.crt", "tls/p.key"]),
    ],
)
def test_a_host_gets_what_its_roles_need_and_no_more(roles: list[str], expected: list[str]) -> None:
    config = given.config(gateway={"api_keys": ["search"]})
    found = handed_to(roles, config, "p")
    assert sorted(found) == sorted(expected)
    assert not any("tls/" in path for path in handed_to(roles, config, None))


def test_files_of_the_users_own_are_where_they_are_read() -> None:
    config = given.config(
        gateway={"tls": {"certificate": "tls/c.pem", "key": "tls/k.pem"}},
        hub={"token_file": "secrets/token"},
        observability={"receivers": [{"name": "ops", "webhook": {"url_file": "secrets/url"}}]},
    )
    assert own_files(["gateway"], config) == ["tls/c.pem", "tls/k.pem"]
    assert own_files(["engines"], config) == ["secrets/token"]
    assert own_files(["observability"], config) == ["secrets/url"]


@pytest.mark.parametrize(("role", "host"), [("engines", "a"), ("gateway", "front"), ("observability", "front")])
def test_a_host_without_what_is_handed_out_refuses_to_make_it(role: str, host: str, tmp_path: Path) -> None:
    plans = given.fleet(
        given.config(),
        given.host("front", 1, roles=["gateway", "observability"]),
        given.host("a", 2, roles=["engines"]),
    )
    assert role in (plans[host].fleet or pytest.fail("no fleet")).roles
    with pytest.raises(StackError, match="the controller hands them out"):
        require(tmp_path, plans[host])


def test_containers_copies_are_made_where_there_are_such_containers() -> None:
    copies = copies_of(engine_key.new_keys())
    assert [copy.folder for copy in for_roles(copies, ["engines"])] == ["engine"]
    assert [copy.folder for copy in for_roles(copies, ["gateway"])] == ["haproxy"]
    assert for_roles(copies, ["observability"]) == []


Make = Callable[..., dict[str, Any]]


@pytest.fixture
def make(
    write_stack: WriteStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Make:
    """Runs fleet_secrets.py for three hosts; what it says."""
    stack = write_stack(
        "device: cpu\nname: f\nmodels: [{served_model_name: toy, source: {toy: true}}]\n"
        f"paths: {{state: {tmp_path}/state}}\ngateway: {{api_keys: [search]}}\n"
    )
    (tmp_path / "hosts.yaml").write_text(HOSTS)

    def call(*arguments: str) -> dict[str, Any]:
        code, out, err = run(
            monkeypatch, capsys, "fleet_secrets.py", str(stack), "--hosts", str(tmp_path / "hosts.yaml"), *arguments
        )
        assert code == 0, err
        found: dict[str, Any] = json.loads(out)
        return found

    return call


def test_the_controller_makes_them_once(make: Make, tmp_path: Path) -> None:
    assert make("--look")["hosts"]["front"]["handed"] == []
    first = make()
    assert len(first["made"]) == 4
    again = make()
    assert again["made"] == []
    assert again["hosts"] == first["hosts"]
    state = tmp_path / "state/stacks/f"
    values = [(state / path).read_text().strip() for path in first["hosts"]["front"]["handed"]]
    assert len(values) == 5
    assert not any(value in json.dumps(first) for value in values)


def test_what_a_vault_has_is_not_made(make: Make, tmp_path: Path) -> None:
    key = tmp_path / "state/stacks/f/secrets/engine-key.json"
    key.parent.mkdir(parents=True)
    key.write_text("$ANSIBLE_VAULT;1.1;AES256\n6132\n")
    made = make("--vault", "search")["made"]
    assert not any("search" in what or "engines" in what for what in made)
    assert is_encrypted(key)
