"""The files of a plan that monitoring reads, made from typed data: rules, alert routes, scrape jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stack.observe import alertmanager, gateway, gpu, host, monitoring, serving, slo
from stack.observe.histograms import GATEWAY
from stack.observe.jobs import BLACKBOX, jobs_for
from stack.observe.rule import Alert, Group, rule_file

RULES = "prometheus/rules/"
# Clients that have a label of their own in the gateway's metrics; the rest share one.
LABELLED_CLIENTS = 100


def rule_groups(plan: Mapping[str, Any]) -> dict[str, list[Group]]:
    """Subsystem -> its groups."""
    made = {
        "slo": slo.groups(plan["watch"]),
        "serving": [Group("serving", list(serving.alerts(plan)))],
        "gateway": [Group("gateway", gateway.ALERTS)],
        "gpu": [Group("gpu", list(gpu.alerts(plan)))],
        "host": [Group("host", host.ALERTS)],
        "monitoring": [Group("monitoring", list(monitoring.alerts(plan)))],
    }
    return {name: [group for group in groups if group.rules] for name, groups in made.items() if any(
        group.rules for group in groups)}  # fmt: skip


def alerts(plan: Mapping[str, Any]) -> list[Alert]:
    """Every alert of a plan."""
    return [
        rule
        for groups in rule_groups(plan).values()
        for group in groups
        for rule in group.rules
        if isinstance(rule, Alert)
    ]


def rule_files(plan: Mapping[str, Any], patience: float = 1.0) -> dict[str, bytes]:
    """Path in the tree -> rule file: the plan's own, and those that the stack file names.

    patience: factor of every alert's wait, for tests that cannot wait.
    """
    watch = plan["watch"]
    own = {f"{RULES}{name}.yaml": rule_file(groups, watch["runbooks"], patience)
           for name, groups in rule_groups(plan).items()}  # fmt: skip
    return own | {f"{RULES}own-{name}": text.encode() for name, text in watch["rules"].items()}


def files(plan: Mapping[str, Any]) -> dict[str, bytes]:
    """Path in the tree -> content."""
    return {**rule_files(plan), "prometheus/alertmanager.yml": alertmanager.configuration(plan["watch"])}


def context(watch: Mapping[str, Any], jobs: Sequence[str], servers: int) -> dict[str, Any]:
    """What templates say of monitoring. jobs: those that this plan has targets of. servers: engines of a HAProxy."""
    return {
        "jobs": jobs_for(jobs, servers),
        "blackbox": BLACKBOX,
        "observe": {"edges": GATEWAY, "given_up_after": watch["slo"]["given_up_after"]},
    }
