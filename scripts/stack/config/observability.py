"""The section `observability` of stack.yaml."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from stack.config.fields import FilePath, ModelName, Name, Port, Section
from stack.observe import histograms
from stack.observe.slo import never_fires


def _duration(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}[hdwy]", value):
        raise ValueError("a number and h, d, w or y, such as 30d")
    return value


def _percent(value: float) -> float:
    wrong = never_fires(value)
    if wrong:
        raise ValueError(wrong)
    return value


def _port(url: str) -> str:
    try:
        _ = urlsplit(url).port
    except ValueError:
        raise ValueError("its port is above 65535") from None
    return url


# No name, no password, no quote: it stands in files that are no secret.
COLLECTOR = r"^https?://[A-Za-z0-9.-]+(:[1-9][0-9]{0,4})?(/[A-Za-z0-9._~/?&=%-]*)?$"
Url = Annotated[str, Field(max_length=2000, pattern=r"^https?://[^\s/]+\S*$")]
Percent = Annotated[float, Field(lt=100), AfterValidator(_percent)]


class Latency(Section):
    """How fast one model has to be: `objective` per cent of its requests within `seconds`."""

    model: ModelName
    metric: Literal["ttft", "e2e"]
    seconds: float = Field(gt=0)
    objective: Percent = 99.0

    @model_validator(mode="after")
    def _measurable(self) -> Latency:
        wrong = histograms.not_an_edge(self.metric, self.seconds)
        if wrong:
            raise ValueError(wrong)
        return self


class Slo(Section):
    """Objectives over 30 days; docs/observability.md says what counts."""

    availability: Percent = 99.99
    given_up_after: int = Field(10, ge=1, le=3600)
    latency: tuple[Latency, ...] = Field((), max_length=128, strict=False)


class Webhook(Section):
    """Alertmanager posts its JSON here."""

    url: Url | None = None
    url_file: FilePath | None = None

    @model_validator(mode="after")
    def _one_url(self) -> Webhook:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("give exactly one of url and url_file")
        return self


class Email(Section):
    """By SMTP; smarthost is host:port."""

    to: Annotated[str, Field(min_length=3, max_length=500)]
    sender: Annotated[str, Field(min_length=3, max_length=200)]
    smarthost: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]
    username: str | None = None
    password_file: FilePath | None = None
    require_tls: bool = True


class Slack(Section):
    """An incoming webhook, whose address is the secret."""

    api_url_file: FilePath
    channel: Annotated[str, Field(min_length=1, max_length=100)]


class PagerDuty(Section):
    """Events API v2; url: another than PagerDuty's own."""

    routing_key_file: FilePath
    url: Url | None = None


class Receiver(Section):
    """Who is told of alerts of these severities."""

    name: Name
    severities: tuple[Literal["page", "ticket", "watchdog"], ...] = Field(
        ("page", "ticket"), min_length=1, strict=False
    )
    webhook: Webhook | None = None
    email: Email | None = None
    slack: Slack | None = None
    pagerduty: PagerDuty | None = None

    @model_validator(mode="after")
    def _reachable(self) -> Receiver:
        if not any((self.webhook, self.email, self.slack, self.pagerduty)):
            raise ValueError("give at least one of webhook, email, slack, pagerduty")
        if self.name == "none":
            raise ValueError("'none' is what Alertmanager calls nobody here; use another name")
        return self


class Grafana(Section):
    """The dashboards of grafana/ in Grafana. Where images are built there is none: nothing to build it from."""

    enabled: bool = True
    port: Port = 3000


class LogShipping(Section):
    """Where Fluent Bit sends what the parts log, as lines of JSON; containers: Docker's folder of them on this host."""

    url: Annotated[str, Field(max_length=500, pattern=COLLECTOR), AfterValidator(_port)]
    containers: Annotated[str, Field(pattern=r"^/[A-Za-z0-9._/-]+$", max_length=500)] = "/var/lib/docker/containers"


class Observability(Section):
    """Prometheus, Alertmanager and Grafana, on loopback only; what is promised, and who is told."""

    retention: Annotated[str, AfterValidator(_duration)] = "30d"
    prometheus_port: Port = 9090
    alertmanager_port: Port = 9093
    grafana: Grafana = Grafana()
    slo: Slo = Slo()
    receivers: tuple[Receiver, ...] = Field((), max_length=50, strict=False)
    rules: tuple[FilePath, ...] = Field((), max_length=50, strict=False)
    log_shipping: LogShipping | None = None
    runbooks: Annotated[str, Field(min_length=1, max_length=500, pattern=r"^[!-~]+$")] = "docs/runbooks"
