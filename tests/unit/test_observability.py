"""Files that the observability section names, error budgets, and the bounds of what the gateway counts."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stack.errors import InputError
from stack.gateway_state import GatewayState
from stack.observe import alertmanager, files, user_files
from stack.observe.error_budget import budgets
from stack.render import render
from stack.yaml_input import parsed
from stacks import ROOT
from unit import given

RULES = "groups: [{name: ours, rules: [{alert: Ours, expr: up == 0}]}]\n"
RECEIVERS = [
    {"name": "hook", "webhook": {"url_file": "hook"}},
    {"name": "mail", "email": {"to": "a@b.example", "sender": "c@d.example", "smarthost": "e.example:25",
                               "username": "u", "password_file": "mail"}},
    {"name": "chat", "slack": {"api_url_file": "chat", "channel": "#a"}},
    {"name": "pager", "pagerduty": {"routing_key_file": "pager"}},
]  # fmt: skip


def watch(**keys: Any) -> dict[str, Any]:
    """The observability section of a configuration, as plain data."""
    return given.config(observability=keys).observability.model_dump()


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    for name in ("hook", "mail", "chat", "pager"):
        (tmp_path / name).write_text(f"https://secret.example/{name}\n")
        (tmp_path / name).chmod(0o600)
    return tmp_path


def problems(found: dict[str, Any], root: Path) -> list[str]:
    with pytest.raises(InputError) as refusal:
        user_files.read(found, root, "stack.yaml")
    return [str(problem) for problem in refusal.value.problems]


def test_a_rule_file_of_the_users_is_in_the_tree_under_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "ours.yml").write_text(RULES)
    rules = user_files.read(watch(rules=["ours.yml"]), tmp_path, "stack.yaml")
    made = given.plan(given.config())
    tree = files.files({**made.as_dict(), "watch": {**made.watch, "rules": rules}})
    assert tree["prometheus/rules/own-ours.yaml"].decode() == RULES


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "is not a readable file"), ("groups: [", "is not YAML"), ("a: b", "has no `groups`"),
     ("groups: []", "has no `groups`"), ("- x", "has no `groups`"), ("x" * 1_000_001, "larger than")],
)  # fmt: skip
def test_what_is_no_rule_file_is_refused_by_name(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "ours.yaml").write_text(content)
    (problem,) = problems(watch(rules=["ours.yaml"]), tmp_path)
    assert problem.startswith("observability.rules[0]: ours.yaml: ")
    assert said in problem


def test_two_rule_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ours.yaml").write_text(RULES)
    assert "same name" in problems(watch(rules=["a/ours.yaml", "b/ours.yaml"]), tmp_path)[0]


def test_secrets_that_are_there_are_taken(secrets: Path) -> None:
    assert user_files.read(watch(receivers=RECEIVERS), secrets, "stack.yaml") == {}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lambda path: path.unlink(), "No such file"), (lambda path: path.chmod(0o644), "chmod 600"),
     (lambda path: path.write_text("\n"), "nothing else"), (lambda path: path.write_text("two words"), "nothing else")],
)  # fmt: skip
def test_a_secret_that_is_missing_open_or_empty_is_refused_by_its_key(
    secrets: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    for name in ("hook", "chat"):
        spoil(secrets / name)
    found = problems(watch(receivers=RECEIVERS), secrets)
    assert [problem.split(":")[0] for problem in found] == [
        "observability.receivers[0].webhook.url_file", "observability.receivers[2].slack.api_url_file"
    ]  # fmt: skip
    assert all(said in problem for problem in found)


def test_secrets_are_copied_for_alertmanager_alone_and_those_of_gone_receivers_go(secrets: Path) -> None:
    folder = secrets / "state/alertmanager"
    made = given.plan(given.config(observability={"receivers": RECEIVERS})).watch
    copies = user_files.copy_secrets(made, secrets, folder)
    assert {path.read_text() for path in copies} == {
        f"https://secret.example/{n}" for n in ("hook", "mail", "chat", "pager")
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in copies} == {0o400}
    configuration = alertmanager.configuration(made).decode()
    assert "secret.example" not in configuration
    named = {Path(word).name for word in configuration.split() if word.startswith(alertmanager.SECRETS)}
    assert named == {path.name for path in copies}
    fewer = {**made, "receivers": made["receivers"][:1]}
    assert user_files.copy_secrets(fewer, secrets, folder) == [folder / "hook.webhook.url_file"]
    assert [path.name for path in folder.iterdir()] == ["hook.webhook.url_file"]


def test_every_receiver_is_configured_with_what_alertmanager_calls_it() -> None:
    made = given.plan(given.config(observability={"receivers": RECEIVERS})).watch
    found = {entry["name"]: entry for entry in parsed(alertmanager.configuration(made))["receivers"]}
    assert found["none"] == {"name": "none"}
    (mail,) = found["mail"]["email_configs"]
    assert (mail["from"], mail["auth_username"], mail["require_tls"]) == ("c@d.example", "u", True)
    assert mail["auth_password_file"].startswith(alertmanager.SECRETS)
    assert {name: [key for key in entry if key.endswith("_configs")] for name, entry in found.items()} == {
        "none": [], "hook": ["webhook_configs"], "mail": ["email_configs"], "chat": ["slack_configs"],
        "pager": ["pagerduty_configs"],
    }  # fmt: skip


def answers(requests: float | None, bad: float | None, ratio: float | None) -> Callable[[str], float | None]:
    """A Prometheus that knows one objective."""

    def ask(query: str) -> float | None:
        if "ratio_rate" in query:
            return ratio
        assert "[30d]" in query
        assert "{span}" not in query
        return bad if "failed" in query or " - " in query else requests

    return ask


def test_what_is_left_of_a_budget_is_one_less_the_share_of_it_that_was_bad() -> None:
    made = given.plan(given.config()).watch
    (budget,) = budgets(made, answers(1_000_000, 25, 0.0002))
    assert budget.remaining == pytest.approx(0.75)
    assert budget.good_percent == pytest.approx(99.9975)
    assert budget.burn_1h == pytest.approx(2)
    (overdrawn,) = budgets(made, answers(10_000, 3, None))
    assert overdrawn.remaining == pytest.approx(-2)
    assert overdrawn.burn_1h is None


@pytest.mark.parametrize(("requests", "bad"), [(None, None), (0, 0), (None, 3)])
def test_without_a_request_there_is_no_budget_to_tell(requests: float | None, bad: float | None) -> None:
    (budget,) = budgets(given.plan(given.config()).watch, answers(requests, bad, None))
    assert (budget.good_percent, budget.remaining) == (None, None)


def test_only_so_many_clients_have_a_label_of_their_own() -> None:
    made = given.plan(given.config(gateway={"api_keys": [f"client-{n}" for n in range(300)]}))
    tree = render(made, GatewayState({"0" * 64: "client-0"}), ROOT)
    labels = [client["label"] for client in json.loads(tree["nginx/clients.json"]).values()]
    assert len(labels) == 301  # with the probe
    assert len(set(labels)) == files.LABELLED_CLIENTS + 1
    assert labels.count("others") == 301 - files.LABELLED_CLIENTS


def test_a_probe_asks_each_model_for_a_real_completion() -> None:
    made = given.plan(given.config(given.toy(replicas=2), given.toy(served_model_name='odd/name.1-"x"'[:10])))
    modules = parsed(render(made, GatewayState({"0" * 64: "default"}), ROOT)["blackbox/blackbox.yml"])["modules"]
    used = {target.labels["__param_module"] for target in made.targets if target.job.startswith("probe_")}
    assert used == modules.keys()
    asked = {name: json.loads(module["http"]["body"]) for name, module in modules.items()}
    names = {pool.name: pool.served_model_name for pool in made.pools}
    assert {name: body["model"] for name, body in asked.items()} == {
        f"{kind}_{pool}": model for pool, model in names.items() for kind in ("gateway", "replica")
    }
    assert all(body["max_tokens"] == 1 for body in asked.values())


def test_a_gpu_stack_has_its_exporters_and_its_gpus_alerts_and_a_cpu_stack_has_not() -> None:
    cuda, cpu = given.plan(given.config(device="cuda")), given.plan(given.config())
    assert {"dcgm", "cadvisor"} <= {target.job for target in cuda.targets}
    assert not {"dcgm", "cadvisor"} & {target.job for target in cpu.targets}
    assert "prometheus/rules/gpu.yaml" in files.files(cuda.as_dict())
    assert "prometheus/rules/gpu.yaml" not in files.files(cpu.as_dict())


def test_what_the_gpu_alerts_ask_for_is_collected() -> None:
    listed = {line.split(",")[0] for line in (ROOT / "compose/dcgm/counters.csv").read_text().splitlines()}
    text = files.files(given.plan(given.config(device="cuda")).as_dict())["prometheus/rules/gpu.yaml"].decode()
    asked = {
        word for word in text.replace("{", " ").replace("[", " ").replace("(", " ").split() if word.startswith("DCGM_")
    }
    assert len(asked) > 8
    assert asked <= listed
