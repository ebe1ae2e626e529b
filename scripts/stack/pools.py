"""Replicas out of the pools of one gateway host, and back, while the deploy of a fleet replaces them elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import docker
import requests

from stack import adjust, drains
from stack.errors import InputError, StackError
from stack.gateway_client import Refused
from stack.inputs import ROOT, Place
from stack.reload import SERVICES
from stack.smoke import ask_at, behind, in_pools


def take_out(place: Place, replica: str, client: docker.DockerClient, least: int = 1) -> bool:
    """No new request to this replica; whether this gateway knows it at all.

    Kept until put_back(): another change of this gateway meanwhile does not let requests in again.

    Raises InputError: it serves, and fewer than `least` others do.
    """
    plan = adjust.applied_plan(place.live)
    pool = _pool_of(plan, replica)
    if pool is None:
        return False
    out = drains.replacing(place.state)
    others = set(pool["engines"]) & set(behind(plan)) - drains.drained(place.state) - out - {replica}
    for service in _balancers(place, client):
        serve = in_pools(place.project, service, client)
        left = len(others & serve)
        if replica in serve and left < least and not os.environ.get("ALLOW_DOWNTIME"):
            found = f"{left} other(s) serve" if left else "no other replica serves"
            wanted = f", and at least {least} shall" if least > 1 else ""
            what = f"{found} {pool['served_model_name']} now, says {service} of this gateway{wanted}"
            raise InputError(replica, f"{what}; with ALLOW_DOWNTIME=1 it is taken out anyway")
    drains.save_replacing(place.state, out | {replica})
    adjust.adjust(place.project, place.state, ROOT, client)
    return True


def put_back(place: Place, replica: str, client: docker.DockerClient) -> bool:
    """Requests again, once it has answered one that was asked from here; whether this gateway knows it at all.

    Raises StackError: it does not answer, and stays out.
    """
    plan = adjust.applied_plan(place.live)
    pool = _pool_of(plan, replica)
    out = drains.replacing(place.state)
    if pool is not None and replica in behind(plan):
        where = _where(plan, replica)
        try:
            ask_at(where, plan, pool)
        except (requests.RequestException, Refused, LookupError, ValueError) as error:
            raise StackError(
                f"{replica} does not answer this gateway at {where} and stays out of its pool: {error}. Is the private"
                " network up, and the firewall of its host loaded (`systemctl status vllm-onprem-firewall` there)?"
            ) from None
    if replica in out:
        drains.save_replacing(place.state, out - {replica})
        adjust.adjust(place.project, place.state, ROOT, client)
    return pool is not None


def settle(place: Place, client: docker.DockerClient) -> dict[str, str]:
    """What an earlier deploy that was cut off has left out: back, where it answers. Replica -> what became of it."""
    found = {}
    for replica in sorted(drains.replacing(place.state)):
        try:
            put_back(place, replica, client)
        except StackError as error:
            found[replica] = str(error)
        else:
            found[replica] = "is in its pool again"
    return found


def _pool_of(plan: Mapping[str, Any], replica: str) -> Mapping[str, Any] | None:
    return next((pool for pool in plan["pools"] if replica in pool["engines"]), None)


def _where(plan: Mapping[str, Any], replica: str) -> str:
    server = plan["fleet"]["servers"][replica]
    return f"{server['address']}:{server['port']}"


def _balancers(place: Place, client: docker.DockerClient) -> list[str]:
    """Those that run: one that does not is nobody's way to a replica."""
    found = []
    for service in SERVICES["haproxy"]:
        try:
            in_pools(place.project, service, client)
        except (LookupError, requests.RequestException):
            continue
        found.append(service)
    return found
