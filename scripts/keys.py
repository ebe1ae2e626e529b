#!/usr/bin/env python3
"""API keys of the gateway's clients: add, list, revoke. In force within seconds, and no request is dropped."""

from __future__ import annotations

import argparse

from pydantic import ValidationError

from stack import adjust, clients, console, inputs
from stack.config.gateway import Client
from stack.config.problems import problems_of
from stack.docker_host import connect
from stack.errors import InputError
from stack.locks import only_one


def main() -> int:
    arguments = _arguments()
    place = inputs.place(arguments)
    plan = adjust.applied(place.live)
    names: tuple[str, ...] = tuple(plan.gateway["api_keys"])
    if arguments.action == "list":
        rows = clients.listing(place.state, names)
        if arguments.json:
            console.print_json(rows)
        else:
            print(console.table(["client", "key", "made", "from"], [list(row.values()) for row in rows]))
        return 0
    if not arguments.name:
        raise InputError("NAME", "a client's name is needed")
    with only_one(place.state):
        if arguments.action == "add":
            client = _client(arguments, [pool.served_model_name for pool in plan.pools])
            result = clients.add(place.state, client, client.name in names)
        else:
            result = clients.revoke(place.state, arguments.name, arguments.key, names)
        adjust.adjust(place.project, place.state, inputs.ROOT, connect())
    if arguments.json:
        console.print_json({"key" if arguments.action == "add" else "done": result})
        return 0
    if arguments.action == "add":
        console.say(f"a key of {arguments.name}, in force now; it is shown this once and kept nowhere:")
    print(result)
    return 0


def _arguments() -> argparse.Namespace:
    epilog = "example: scripts/keys.py stack.yaml add search --rate 20"
    parser = argparse.ArgumentParser(description=__doc__, epilog=epilog)
    inputs.add_arguments(parser)
    parser.add_argument("action", choices=["add", "list", "revoke"])
    parser.add_argument("name", nargs="?", help="the client")
    parser.add_argument("--models", metavar="A,B", help="add: the models it may ask for (default: all)")
    parser.add_argument("--rate", type=int, metavar="N", help="add: requests per second")
    parser.add_argument("--concurrency", type=int, metavar="N", help="add: requests at once")
    parser.add_argument("--max-body-size-mib", type=int, metavar="N", help="add: largest request body")
    parser.add_argument("--key", metavar="ID", help="revoke: which of its keys, as `list` shows it")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    return parser.parse_args()


def _client(arguments: argparse.Namespace, served: list[str]) -> Client:
    wanted = {
        "name": arguments.name,
        "models": arguments.models.split(",") if arguments.models else None,
        "requests_per_second": arguments.rate,
        "concurrency": arguments.concurrency,
        "max_body_size_mib": arguments.max_body_size_mib,
    }
    try:
        client = Client.model_validate(wanted)
    except ValidationError as error:
        raise InputError("client", problems_of(error, Client)) from None
    unknown = sorted(set(client.models or ()) - set(served))
    if unknown:
        raise InputError("--models", f"not served: {', '.join(unknown)}; there are: {', '.join(served)}")
    return client


if __name__ == "__main__":
    console.run(main)
