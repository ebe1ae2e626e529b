#!/usr/bin/env python3
"""POST one body at a fixed rate and print every latency as JSON. Runs in .bench-venv, as it needs aiohttp.

milliseconds: from a request's intended start to the end of its answer, so a stall counts for every request that
should have begun meanwhile (no coordinated omission). errors: not 200, resets, deadline. Nothing is sent twice.
per_second: good answers by seconds from the first intended start to the last answer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from pathlib import Path

import aiohttp  # type: ignore[import-not-found, unused-ignore]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example: .bench-venv/bin/python tests/bench/open_loop.py http://127.0.0.1:8000/v1/"
        "completions --body body.json --rate 200 --seconds 5"
    )  # fmt: skip
    parser.add_argument("url")
    parser.add_argument("--body", type=Path, required=True, help="file with the JSON to send")
    parser.add_argument("--rate", type=int, default=200, help="requests per second (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--deadline", type=int, default=30, help="seconds after which a request is an error")
    parser.add_argument("--header", action="append", default=[], help="'Name: value', may be repeated")
    print(json.dumps(asyncio.run(run(parser.parse_args()))))


async def run(arguments: argparse.Namespace) -> dict[str, object]:
    """The whole load. See the module for what the numbers mean."""
    headers = {"content-type": "application/json", **dict(line.split(": ", 1) for line in arguments.header)}
    body, loop = arguments.body.read_bytes(), asyncio.get_running_loop()
    total, gap = arguments.rate * arguments.seconds, 1 / arguments.rate
    good: list[tuple[float, float]] = []
    timeout = aiohttp.ClientTimeout(total=arguments.deadline)
    # the gateway's certificate is its own: who it is does not matter here
    connector = aiohttp.TCPConnector(limit=0, ssl=False)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:

        async def send(intended: float) -> None:
            try:
                async with session.post(arguments.url, data=body) as answer:
                    await answer.read()
                    if answer.status == 200:
                        good.append((intended, time.monotonic()))
            except (aiohttp.ClientError, TimeoutError):
                pass

        began = time.monotonic() + 0.2
        tasks: list[asyncio.Task[None]] = []

        def start(intended: float) -> None:
            tasks.append(loop.create_task(send(intended)))

        def pace() -> None:
            # a thread's sleep is exact to about 0.1 ms, the event loop's only to 1 ms
            for number in range(total):
                intended = began + number * gap
                time.sleep(max(0.0, intended - time.monotonic()))
                loop.call_soon_threadsafe(start, intended)

        thread = threading.Thread(target=pace)
        thread.start()
        await asyncio.to_thread(thread.join)
        await asyncio.sleep(0)
        await asyncio.gather(*tasks)
    last = max((end for _, end in good), default=began)
    return {
        "milliseconds": [round(1000 * (end - start), 3) for start, end in good],
        "errors": total - len(good),
        "per_second": len(good) / max(last - began, gap),
    }


if __name__ == "__main__":
    main()
