"""Load for one URL, never a retry. h2load for closed loops, open_loop.py for a fixed rate.

Why h2load (Debian's nghttp2-client): maintained, TLS, POST bodies, HTTP/1.1 with keep-alive, and it logs every single
request, so that percentiles come from raw values. wrk is faster, but fills its histogram with values that it did not
measure; neither Debian nor PyPI has a tool for open loops that counts latency from the intended start.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.processes import BIN
from stack.errors import InputError, StackError

OPEN_LOOP = Path(__file__).with_name("open_loop.py")
# A request that takes longer is an error; more than any target here needs when it is overrun for a few seconds.
DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class Target:
    """What is measured: a URL that takes POSTs, and headers (an API key)."""

    name: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Sample:
    """milliseconds: one value for each good (200) request. errors: other statuses, resets, timeouts.

    per_second: good requests by seconds from the first start to the last end.
    """

    milliseconds: tuple[float, ...]
    errors: int
    per_second: float


def need_h2load() -> None:
    """Raises InputError when it is missing."""
    if not shutil.which("h2load"):
        raise InputError("h2load", "not found: apt-get install nghttp2-client (Debian, Ubuntu)")


def closed_loop(target: Target, body: Path, connections: int, seconds: int, scratch: Path) -> Sample:
    """Each connection sends its next request when it has the answer; latency is from send to end of answer."""
    log = scratch / "h2load.log"
    log.unlink(missing_ok=True)
    headers = [part for name, value in target.headers.items() for part in ("-H", f"{name}: {value}")]
    done = subprocess.run(
        ["h2load", "--h1", "-t1", f"-c{connections}", f"-D{seconds}", f"--log-file={log}", f"--data={body}",
         "-Hcontent-type: application/json", *headers, target.url],
        capture_output=True, text=True, check=False, timeout=seconds + 60,
    )  # fmt: skip
    counted = re.search(r"(\d+) errored, (\d+) timeout", done.stdout)
    if done.returncode or not counted:
        raise StackError(f"h2load against {target.name} failed: {done.stdout[-300:]}{done.stderr[-300:]}")
    rows = [line.split("\t") for line in log.read_text().splitlines()]  # start us, status, us until the end
    good = [(int(start), int(took)) for start, status, took in rows if status == "200"]
    if not good:
        return Sample((), len(rows) + int(counted[1]) + int(counted[2]), 0.0)
    span = (max(start + took for start, took in good) - min(start for start, _ in good)) / 1e6
    errors = len(rows) - len(good) + int(counted[1]) + int(counted[2])
    return Sample(tuple(took / 1000 for _, took in good), errors, len(good) / span)


def open_loop(target: Target, body: Path, rate: int, seconds: int) -> Sample:
    """Requests start at a fixed rate whatever the answers do; latency is from the intended start."""
    headers = [part for name, value in target.headers.items() for part in ("--header", f"{name}: {value}")]
    done = subprocess.run(
        [str(BIN / "python"), str(OPEN_LOOP), target.url, "--body", str(body), "--rate", str(rate),
         "--seconds", str(seconds), "--deadline", str(DEADLINE_SECONDS), *headers],
        capture_output=True, text=True, check=False, timeout=seconds + DEADLINE_SECONDS + 60,
    )  # fmt: skip
    if done.returncode:
        raise StackError(f"the open loop against {target.name} failed: {done.stderr[-500:]}")
    result = json.loads(done.stdout)
    return Sample(tuple(result["milliseconds"]), result["errors"], result["per_second"])
