"""Checks of the smoke test: each runs once, and whatever it raises becomes a result with the next step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, cast

import docker
import pytest
import requests

from stack.checks import Check, Result, SkippedError, run_checks
from stack.gateway_client import GatewayClient, Refused
from stack.smoke import gateway_checks, host_checks, services
from unit import given
from unit.loopback import Answer, serve


def failing(error: Exception) -> Callable[[], NoReturn]:
    def attempt() -> NoReturn:
        raise error

    return attempt


def outcome(attempt: Callable[[], str]) -> Result:
    (result,) = run_checks([Check("it", "look there", attempt)], lambda _: None)
    return result


def test_a_check_that_returns_has_passed_with_its_detail() -> None:
    result = outcome(lambda: "8 tokens")
    assert (result.status, result.detail, result.look, result.failed) == ("passed", "8 tokens", "", False)


@pytest.mark.parametrize(
    "error",
    [
        Refused(503, "queue is full"),
        requests.ConnectionError("refused"),
        requests.Timeout("slow"),
        KeyError("choices"),
        ValueError("not JSON"),
        LookupError("no such container"),
        docker.errors.APIError("engine says no"),
    ],
)
def test_a_check_that_fails_says_why_and_where_to_look(error: Exception) -> None:
    result = outcome(failing(error))
    assert (result.status, result.look, result.failed) == ("failed", "look there", True)
    assert result.detail.startswith(type(error).__name__)


def test_a_check_that_does_not_apply_is_skipped_and_not_a_failure() -> None:
    result = outcome(failing(SkippedError("the model has no chat template")))
    assert (result.status, result.detail, result.failed) == ("skipped", "the model has no chat template", False)


def test_a_long_message_is_cut_to_one_line() -> None:
    result = outcome(failing(ValueError("a" * 1000 + "\nsecond line")))
    assert len(result.detail) <= 300
    assert "second" not in result.detail


def test_a_mistake_in_a_check_is_not_taken_for_a_failure_of_the_stack() -> None:
    with pytest.raises(AttributeError):
        outcome(failing(AttributeError("a bug of ours")))


def test_every_check_runs_once_in_order_and_is_told_as_it_ends() -> None:
    ran: list[str] = []
    told: list[str] = []

    def attempt(name: str) -> Callable[[], str]:
        def run() -> str:
            assert told == ran
            ran.append(name)
            return name

        return run

    names = ["a", "b", "c"]
    results = run_checks([Check(name, "", attempt(name)) for name in names], lambda result: told.append(result.name))
    assert ran == told == [result.name for result in results] == names


def smoke(answer: Answer, **pool: Any) -> dict[str, str]:
    """Check -> status, of a gateway that gives this answer to everything. pool: what its one pool is."""
    with serve(answer) as server:
        client = GatewayClient(server.url, "sk-test")
        checks = gateway_checks(client, [{"served_model_name": "toy", **pool}])
        return {result.name: result.status for result in run_checks(checks, lambda _: None)}


def test_a_gateway_that_lets_everybody_in_fails_though_it_answers() -> None:
    body = {"choices": [{"text": "a", "message": {"content": "a"}}], "usage": {"completion_tokens": 1}}
    assert smoke(Answer.of(body)) == {
        "completion toy": "passed",
        "chat toy": "passed",
        "stream toy": "failed",
        "bad key refused": "failed",
        "no key refused": "failed",
    }


def test_a_gateway_that_lets_nobody_in_fails_though_it_refuses_strangers() -> None:
    assert smoke(Answer.of({"error": {"message": "no"}}, 401)) == {
        "completion toy": "failed",
        "chat toy": "failed",
        "stream toy": "failed",
        "bad key refused": "passed",
        "no key refused": "passed",
    }


def test_a_model_without_a_chat_template_is_not_blamed_for_it() -> None:
    said = "As of transformers v4.44, default chat template is no longer allowed, so you must provide a Chat Template"
    assert smoke(Answer.of({"error": {"message": said}}, 400))["chat toy"] == "skipped"
    assert smoke(Answer.of({"error": {"message": "too long"}}, 400))["chat toy"] == "failed"


@pytest.mark.parametrize(
    ("vector", "status"),
    [([0.5, -0.5], "passed"), ([], "failed"), ([0.0, 0.0], "failed"), ([0.5, float("nan")], "failed")],
)
def test_an_embedding_model_is_asked_for_an_embedding_and_for_nothing_else(vector: list[float], status: str) -> None:
    checks = smoke(Answer.of({"data": [{"embedding": vector}]}), task="embed")
    assert list(checks) == ["embedding toy", "bad key refused", "no key refused"]
    assert checks["embedding toy"] == status


def test_each_adapter_is_asked_by_its_own_name() -> None:
    body = {"choices": [{"text": "a", "message": {"content": "a"}}], "usage": {"completion_tokens": 1}}
    checks = smoke(Answer.of(body), adapters=["toy-sql", "toy-mail"])
    assert [checks[f"completion {name}"] for name in ("toy", "toy-sql", "toy-mail")] == ["passed"] * 3


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (Answer.of({"database": "ok", "version": "12.4.10"}), "passed"),
        (Answer.of({"database": "failing", "version": "12.4.10"}, 503), "failed"),
        (Answer.of(["odd"]), "failed"),
        (Answer(200, b"<html>"), "failed"),
    ],
)
def test_grafana_is_well_when_it_says_that_its_database_is(answer: Answer, status: str) -> None:
    with serve(answer) as server:
        stack = given.config(observability={"grafana": {"port": server.port}})
        checks = host_checks(given.plan(stack).as_dict(), cast(docker.DockerClient, None))
        results = run_checks([check for check in checks if check.name == "dashboards"], lambda _: None)
        assert server.paths == ["/api/health"]
    assert [result.status for result in results] == [status]


def test_a_stack_without_grafana_is_not_asked_for_it() -> None:
    plan = given.plan(given.config(observability={"grafana": {"enabled": False}})).as_dict()
    assert "grafana" not in services(plan)
    assert not [check for check in host_checks(plan, cast(docker.DockerClient, None)) if check.name == "dashboards"]


def test_every_service_of_a_plan_is_among_the_parts() -> None:
    plan = given.plan(given.config(given.toy(replicas=2))).as_dict()
    assert set(services(plan)) == {
        "alertmanager",
        "blackbox-exporter",
        "engine-toy-0",
        "engine-toy-1",
        "grafana",
        "haproxy",
        "haproxy-standby",
        "nginx",
        "node-exporter",
        "prometheus",
    }
