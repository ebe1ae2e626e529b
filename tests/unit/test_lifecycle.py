"""What is applied on a host, where its gateway answers, and what a person is told of it."""

from __future__ import annotations

import json
import re
import shlex
import threading
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from stack.adjust import applied_plan
from stack.api_keys import ensure_keys, key_file
from stack.apply import look, mark_proven
from stack.certificates import client_trust_file
from stack.errors import InputError, StackError
from stack.lifecycle import gateway_address, gateway_url
from stack.locks import only_one, taking_turns
from stack.render import manifest
from stack.secrets.grafana import password_file
from stack.summary import how_to_use, plan_table
from stack.tree import write_tree
from unit import fake_docker, given


def planned(tmp_path: Path, device: str = "cpu", **gateway: Any) -> dict[str, Any]:
    """A plan as plan.json holds it."""
    model = given.toy(replicas=2, source={"path": "/srv/m"})
    stack = given.config(model, device=device, gateway=gateway, paths={"state": str(tmp_path)})
    plan: dict[str, Any] = json.loads(json.dumps(given.plan(stack).as_dict()))
    return plan


def test_nothing_applied_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="make up"):
        applied_plan(tmp_path)


def test_the_applied_plan_is_read_back(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(planned(tmp_path)))
    assert applied_plan(tmp_path) == planned(tmp_path)


def test_a_damaged_plan_is_told_how_to_mend(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(StackError, match="make up"):
        applied_plan(tmp_path)


@pytest.mark.parametrize(
    ("listen", "address"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "127.0.0.1"), ("10.0.0.5", "10.0.0.5")]
)
def test_the_gateway_answers_where_it_listens_under_its_name(tmp_path: Path, listen: str, address: str) -> None:
    plan = planned(tmp_path, listen=listen, https_port=444, server_name="llm.example.org")
    assert gateway_address(plan) == address
    assert gateway_url(plan) == "https://llm.example.org:444"


def test_one_command_at_a_time_changes_a_stack(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with only_one(state), pytest.raises(StackError, match="another command"), only_one(state):
        raise AssertionError("both hold the lock")
    with only_one(state):
        pass


def test_a_command_that_may_wait_goes_on_when_the_other_has_ended(tmp_path: Path) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with only_one(tmp_path):
            held.set()
            done.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert held.wait(10)
    with pytest.raises(StackError, match="another command"), only_one(tmp_path, 0.1):
        raise AssertionError("both hold the lock")
    threading.Timer(0.2, done.set).start()
    with only_one(tmp_path, 10):
        assert done.is_set()
    other.join()


def test_stacks_that_share_a_folder_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    waits = threading.Event()

    def told(_: str) -> AbstractContextManager[None]:
        waits.set()
        return nullcontext()

    def second() -> None:
        with taking_turns(tmp_path / "state"):
            order.append("second")

    monkeypatch.setattr("stack.locks.step", told)
    thread = threading.Thread(target=second)
    with taking_turns(tmp_path / "state"):
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]


def test_the_line_to_paste_names_the_key_by_its_file_and_never_shows_it(tmp_path: Path) -> None:
    plan = planned(tmp_path, api_keys=["alice", "bob"])
    ensure_keys(Path(plan["state_dir"]), ["alice"])
    file = key_file(Path(plan["state_dir"]), "alice")
    text = how_to_use(plan)
    assert file.read_text().strip() not in text
    (curl,) = (line for line in text.splitlines() if line.startswith("curl "))
    words = shlex.split(curl)
    assert f"Authorization: Bearer $(cat {file})" in words
    assert json.loads(words[words.index("-d") + 1])["model"] == "toy"
    assert "https://localhost:8443/v1/chat/completions" in words
    assert words[words.index("--cacert") + 1] == str(client_trust_file(Path(plan["state_dir"])))
    assert "--resolve" not in words


def test_the_line_to_paste_asks_an_embedding_model_for_an_embedding(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    plan["pools"][0]["task"] = "embed"
    words = shlex.split(next(line for line in how_to_use(plan).splitlines() if line.startswith("curl ")))
    assert "https://localhost:8443/v1/embeddings" in words
    assert json.loads(words[words.index("-d") + 1]) == {"model": "toy", "input": "Hello"}


def test_the_line_to_paste_finds_a_gateway_that_dns_does_not_know(tmp_path: Path) -> None:
    text = how_to_use(planned(tmp_path, server_name="llm.example.org", listen="10.0.0.5"))
    words = shlex.split(next(line for line in text.splitlines() if line.startswith("curl ")))
    assert words[words.index("--resolve") + 1] == "llm.example.org:8443:10.0.0.5"
    assert "https://llm.example.org:8443/v1/chat/completions" in words


def test_the_last_lines_of_up_say_where_grafana_is_or_that_it_is_left_out(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    (line,) = (line for line in how_to_use(plan).splitlines() if "rafana" in line)
    assert "http://127.0.0.1:3000" in line
    assert str(password_file(Path(plan["state_dir"]))) in line
    without = plan | {"published": [port for port in plan["published"] if port["service"] != "grafana"]}
    (line,) = (line for line in how_to_use(without | {"left_out": ["grafana"]}).splitlines() if "rafana" in line)
    assert "left out" in line
    assert "rafana" not in how_to_use(without), "turned off: nobody misses it"


def test_a_plan_shows_every_replica_gpu_flag_port_and_image(tmp_path: Path) -> None:
    plan = planned(tmp_path, device="cuda")
    text = plan_table(plan)
    for engine in plan["engines"]:
        assert re.search(rf"^{engine['name']} .*{engine['gpus'][0]}", text, flags=re.MULTILINE)
        assert " ".join(engine["argv"]) in text
    for port in plan["published"]:
        assert f"{port['address']}:{port['port']}" in text
    assert all(image in text for image in plan["images"].values())
    assert all(uuid in text for uuid in plan["gpus_unused"])


def test_a_tree_that_was_half_written_when_a_run_was_killed_is_not_proven(tmp_path: Path) -> None:
    live, client = tmp_path / "live", fake_docker.engine()
    files = {"nginx/nginx.conf": b"old", "plan.json": b"{}"}
    files["manifest.json"] = manifest(files)
    write_tree(live, files)
    mark_proven(live, files)
    assert look("stack", live, client).proven
    (live / "nginx/nginx.conf").write_bytes(b"new")  # killed before the manifest was written
    assert not look("stack", live, client).proven
