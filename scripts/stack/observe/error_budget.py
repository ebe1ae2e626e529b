"""What is left of the objectives' error budgets, asked of a running Prometheus."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from stack.docker_host import get_page
from stack.errors import StackError
from stack.observe.slo import DAY, HOUR, PERIOD_DAYS, Objective, objectives

PERIOD = PERIOD_DAYS * DAY


@dataclass(frozen=True)
class Budget:
    """One objective over the last 30 days, as far as they are recorded; None where nothing was asked of it.

    requests, bad: counts. remaining: share of the budget that is left, below 0 when it is overdrawn. burn_1h, burn_6h:
    how many times faster than allowed it burns.
    """

    objective: str
    percent: float
    requests: float | None
    bad: float | None
    good_percent: float | None
    remaining: float | None
    burn_1h: float | None
    burn_6h: float | None


Ask = Callable[[str], float | None]


def budgets(watch: Mapping[str, Any], ask: Ask) -> Iterator[Budget]:
    """Of each objective of a plan's `watch`. ask: the one value of a query."""
    for objective in objectives(watch):
        # asked of the counters, not of the rules' last values: those of days are up to two minutes old
        requests, bad = (_count(text, ask) for text in (objective.requests, objective.bad))
        ratio = None if bad is None or not requests else max(0.0, bad) / requests
        yield Budget(
            objective.name,
            objective.percent,
            requests,
            bad,
            None if ratio is None else 100 * (1 - ratio),
            None if ratio is None else 1 - ratio / objective.budget,
            _burn(objective, HOUR, ask),
            _burn(objective, 6 * HOUR, ask),
        )


def prometheus(port: int) -> Ask:
    """Ask the Prometheus on this host. The function raises StackError when it does not answer the query."""

    def ask(query: str) -> float | None:
        page = get_page(f"http://127.0.0.1:{port}/api/v1/query?{urlencode({'query': query})}")
        answer = json.loads(page)
        if answer.get("status") != "success":
            raise StackError(f"Prometheus refused {query}: {answer.get('error')}")
        result = answer["data"]["result"]
        if len(result) > 1:
            raise StackError(f"{query}: {len(result)} values where one is expected")
        return float(result[0]["value"][1]) if result else None

    return ask


def _count(text: str, ask: Ask) -> float | None:
    return ask(text.replace("rate(", "increase(").replace("{span}", f"{PERIOD_DAYS}d"))


def _burn(objective: Objective, span: int, ask: Ask) -> float | None:
    ratio = ask(objective.of("requests_bad:ratio_rate", span) + objective.selector)
    return None if ratio is None else ratio / objective.budget
