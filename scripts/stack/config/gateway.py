"""The section `gateway` of stack.yaml."""

from __future__ import annotations

import re
from ipaddress import IPv4Address
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from stack.config.fields import FilePath, ModelName, Name, Port, Section


def _server_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", value):
        raise ValueError("a DNS name or an IPv4 address")
    return value


def _listen(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except ValueError:
        raise ValueError("an IPv4 address of this host, or 0.0.0.0 for all of them") from None


def _floating(value: str) -> str:
    try:
        address = IPv4Address(value)
    except ValueError:
        raise ValueError("an IPv4 address") from None
    if address.is_loopback or address.is_multicast or address.is_unspecified:
        raise ValueError("not an address that a host can have")
    return str(address)


Listen = Annotated[str, AfterValidator(_listen)]


class Tls(Section):
    """The user's own certificate chain and private key, PEM files."""

    certificate: FilePath
    key: FilePath


class Client(Section):
    """One client of the gateway: what it may ask for. What is left out is the gateway's own limit."""

    name: Name
    models: tuple[ModelName, ...] | None = Field(None, min_length=1, max_length=64, strict=False)
    requests_per_second: int | None = Field(None, ge=1, le=100_000)
    concurrency: int | None = Field(None, ge=1, le=100_000)
    max_body_size_mib: int | None = Field(None, ge=1, le=1024)

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value


class Gateway(Section):
    """The one published address: TLS, API keys, limits of rate, time and size."""

    listen: Listen = "0.0.0.0"
    https_port: Port = 8443
    floating_address: Annotated[str, AfterValidator(_floating)] | None = None
    server_name: Annotated[str, AfterValidator(_server_name)] = "localhost"
    tls: Tls | None = None
    api_keys: tuple[Client, ...] = Field((Client(name="default"),), min_length=1, max_length=1000, strict=False)
    requests_per_second: int = Field(500, ge=1, le=100_000)
    concurrency: int = Field(256, ge=1, le=100_000)
    max_body_size_mib: int = Field(8, ge=1, le=1024)
    request_timeout: int = Field(900, ge=1, le=86400)
