"""The alert cases of tests/rules/ as promtool tests, on rules rendered from a constructed stack with two GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from stack.config.schema import StackConfig
from stack.hardware import Host
from stack.observe import files
from stack.observe.rule import Alert
from stack.plan.make import make_plan
from stack.plan.types import Plan
from stack.yaml_input import parsed
from stacks import EIGHT_GPUS, ROOT

STACK = {
    "device": "cuda",
    "models": [{"served_model_name": "toy", "source": {"toy": True}, "replicas": 2}],
    "observability": {
        "slo": {
            "latency": [
                {"model": "toy", "metric": "ttft", "seconds": 1.0, "objective": 99.0},
                {"model": "toy", "metric": "e2e", "seconds": 30.0, "objective": 99.0},
            ]
        }
    },
}
# What dcgm-exporter 4.8.2 says of a GPU (constructed; UUIDs as the plan has them), and a disk.
GPU = (
    'gpu="{n}",UUID="{uuid}",pci_bus_id="00000000:0{n}:00.0",device="nvidia{n}",modelName="NVIDIA A100-SXM4-80GB",'
    'Hostname="node",DCGM_FI_DRIVER_VERSION="580.95.05"'
)
DISK = 'device="/dev/vda",device_error="",fstype="ext4",mountpoint="/"'
OF_RULE = ("severity", "about")


@dataclass(frozen=True)
class Case:
    """One case. fires: labels of the alert, those of its rule included; None: silent."""

    subsystem: str
    alert: str
    series: Mapping[str, str]
    every: str
    at: str
    rule: Mapping[str, str]
    fires: str | None


@cache
def plan() -> Plan:
    """The plan whose rules are tested."""
    roles = ("alertmanager", "blackbox_exporter", "cadvisor", "dcgm_exporter", "grafana", "haproxy", "nginx",
             "node_exporter", "prometheus", "vllm")  # fmt: skip
    host = Host(name="node", gpus=EIGHT_GPUS.gpus[:2])
    return make_plan(StackConfig.model_validate(STACK), host, dict.fromkeys(roles, "none:0.0.0"), ROOT)


@cache
def alerts() -> list[Alert]:
    """Every alert of that plan."""
    return files.alerts(plan().as_dict())


def cases() -> Iterator[Case]:
    """Every case of every file."""
    for path in sorted((ROOT / "tests/rules").glob("*.yaml")):
        for alert, kinds in parsed(path.read_text()).items():
            for kind in ("fires", "silent"):
                for case in kinds[kind]:
                    yield _case(path.stem, alert, case, kind == "fires")


def promtool_tests() -> dict[str, dict[str, Any]]:
    """Name -> what `promtool test rules` reads: apart by rule file and by step, as promtool evaluates all of a file's
    rules at each step of each of its tests.
    """
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases():
        groups.setdefault((case.subsystem, case.every), []).append(case)
    made = files.rule_groups(plan().as_dict())
    return {
        f"test-{subsystem}-{every}.yml": {
            "rule_files": [f"{subsystem}.yaml"],
            # as they stand in the file: promtool has no order of its own, and alerts ask for what was recorded before
            "group_eval_order": [group.name for group in made[subsystem]],
            "evaluation_interval": every,
            "tests": [_test(case) for case in group],
        }
        for (subsystem, every), group in groups.items()
    }


def labels_in(selector: str) -> dict[str, str]:
    """Label -> value of what stands between the braces of a selector."""
    return dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', selector))


def rule_of(case: Case) -> Alert:
    """The rule that a firing case is of."""
    found = [rule for rule in alerts() if rule.name == case.alert and case.rule.items() <= rule.labels.items()]
    assert found, f"no rule {case.alert} with {case.rule}"
    return found[0]


def _case(subsystem: str, alert: str, case: Mapping[str, Any], fires: bool) -> Case:
    series = {_expand(name): str(values) for name, values in case["series"].items()}
    made = Case(subsystem, alert, series, case.get("every", "1m"), case["at"], case.get("rule", {}), None)
    if not fires:
        return made
    rule = rule_of(made)
    own = {"severity": rule.severity, **({"about": rule.about} if rule.about else {}), **rule.labels}
    labels = {**labels_in(_expand(case["labels"])), **own}
    return replace(made, fires=",".join(f'{k}="{v}"' for k, v in labels.items()))


def _expand(text: str) -> str:
    gpus = plan().engines
    text = text.replace("@gpu1", GPU.format(n=1, uuid=gpus[1].gpus[0]))
    text = text.replace("@gpu", GPU.format(n=0, uuid=gpus[0].gpus[0])).replace("@disk", DISK)
    return re.sub(r"@(\w+)\.(\d)", lambda match: _target(match[1], int(match[2])), text)


def _target(job: str, number: int) -> str:
    target = [target for target in plan().targets if target.job == job][number]
    labels = {name: value for name, value in target.labels.items() if not name.startswith("__")}
    return ",".join(f'{k}="{v}"' for k, v in sorted({**labels, "job": job, "instance": target.address}.items()))


def _test(case: Case) -> dict[str, Any]:
    wanted = {"alertname": case.alert, "alertstate": "firing", **case.rule}
    selector = ",".join(f'{name}="{value}"' for name, value in wanted.items())
    expected = []
    if case.fires is not None:
        labels = ",".join(part for part in (f'alertname="{case.alert}",alertstate="firing"', case.fires) if part)
        expected = [{"labels": f"ALERTS{{{labels}}}", "value": 1}]
    return {
        "name": f"{case.alert} {'fires' if case.fires is not None else 'is silent'}",
        "interval": case.every,
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "promql_expr_test": [{"expr": f"ALERTS{{{selector}}}", "eval_time": case.at, "exp_samples": expected}],
    }
