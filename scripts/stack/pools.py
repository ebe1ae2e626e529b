"""Replicas out of the pools of one gateway host, and back, while the deploy of a fleet replaces them elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import docker
import requests

from stack import adjust, drains
from stack.errors import InputError
from stack.gateway_client import Refused
from stack.inputs import ROOT, Place
from stack.observe import silences
from stack.reload import SERVICES
from stack.smoke import ask_at, behind, in_pools, services


def take_out(
    place: Place, leaving: Mapping[str, int], client: docker.DockerClient, seconds: float = 3600
) -> list[str]:  # fmt: skip
    """No new request to these replicas, and for so long no alert of their absence; those that this gateway has as
    servers.

    Kept until put_back(): another change of this gateway meanwhile does not let requests in again. leaving: replica ->
    how many others of its pool shall serve. Raises InputError: fewer do; none was taken out.
    """
    plan = adjust.applied_plan(place.live)
    for replica in leaving:
        silences.silence(plan, replica, seconds, "replaced by a deploy")
    known = {replica: pool for replica in leaving if (pool := _pool_of(plan, replica))}
    if not known:
        return []
    if not os.environ.get("ALLOW_DOWNTIME"):
        _refuse_shortage(place, plan, {replica: (pool, leaving[replica]) for replica, pool in known.items()}, client)
    drains.save_replacing(place.state, drains.replacing(place.state) | known.keys())
    adjust.adjust(place.project, place.state, ROOT, client)
    return sorted(known)


def put_back(
    place: Place, replicas: Collection[str], client: docker.DockerClient
) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """Requests again for those that answer one asked from here, and alerts of all: (those that were out and are back,
    those that do not answer and stay out -> why).

    No replicas: what an earlier deploy that was cut off has left out.
    """
    plan = adjust.applied_plan(place.live)
    out = drains.replacing(place.state)
    asked = sorted(replicas or out)
    with ThreadPoolExecutor() as pool:
        told = dict(zip(asked, pool.map(partial(_silent, plan), asked), strict=True))
    silent = {replica: why for replica, why in told.items() if why}
    back = out & (told.keys() - silent.keys())
    if back:
        drains.save_replacing(place.state, out - back)
        adjust.adjust(place.project, place.state, ROOT, client)
    for replica in asked:
        silences.end(plan, replica)
    return sorted(back), silent


def _refuse_shortage(
    place: Place, plan: Mapping[str, Any], leaving: Mapping[str, tuple[Mapping[str, Any], int]],
    client: docker.DockerClient,
) -> None:  # fmt: skip
    away = drains.drained(place.state) | drains.replacing(place.state) | leaving.keys()
    for service in _balancers(place, client):
        serve = in_pools(place.project, service, client)
        for replica, (pool, least) in leaving.items():
            left = len(set(pool["engines"]) & set(behind(plan)) & serve - away)
            if replica in serve and left < least:
                found = f"{left} other(s) serve" if left else "no other replica serves"
                wanted = f", and at least {least} shall" if least > 1 else ""
                what = f"{found} {pool['served_model_name']} now, says {service} of this gateway{wanted}"
                raise InputError(replica, f"{what}; with ALLOW_DOWNTIME=1 it is taken out anyway")


def _silent(plan: Mapping[str, Any], replica: str) -> str | None:
    """Why a replica of a pool of this gateway gets no requests; None: it answers, or is of none."""
    pool = _pool_of(plan, replica)
    if pool is None or replica not in behind(plan):
        return None
    where = _where(plan, replica)
    try:
        ask_at(where, plan, pool)
    except (requests.RequestException, Refused, LookupError, ValueError) as error:
        return (
            f"{replica} does not answer this gateway at {where} and stays out of its pool: {error}. Is the private"
            " network up, and the firewall of its host loaded (`systemctl status vllm-onprem-firewall` there)?"
        )
    return None


def _pool_of(plan: Mapping[str, Any], replica: str) -> Mapping[str, Any] | None:
    """The pool that a replica is of in the gateway of this host."""
    if "haproxy" not in services(plan):
        return None
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
