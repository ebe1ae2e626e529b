"""A fetch that is cut, damaged, slowed down or killed: nothing half is served, and the same command finishes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save

from stack.errors import StackError
from stack.models.fetch import ensure_models
from stack.models.toy import make_toy_model
from stacks import ROOT
from unit import given, hub_standin
from unit.hub_standin import Cut, Hub
from unit.test_scripts import run

OWN_PIECE = 10 * 2**20  # what the hub's client writes at once
PIECE = 2**18  # what it writes here, for smaller files
WEIGHTS = "model.safetensors"


def weights(size: int) -> bytes:
    return save({"model.layers.1.pad": np.arange(size // 4, dtype=np.float32)})


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The toy model with weights of some pieces, constructed."""
    folder = tmp_path_factory.mktemp("toy") / "toy"
    make_toy_model(folder)
    (folder / WEIGHTS).write_bytes(weights(3 * PIECE))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def hub(files: dict[str, bytes], no_hub_settings: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", PIECE)
    with hub_standin.serve(Hub(dict(files))) as it:
        yield it


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that the client and the fetch wanted to wait; they do not."""
    found: list[float] = []
    clock = SimpleNamespace(sleep=found.append, monotonic=time.monotonic, time=time.time)
    for module in (
        "huggingface_hub.file_download",
        "huggingface_hub.utils._http",
        "stack.models.hub_files",
        "stack.models.hub_fetch",
    ):
        monkeypatch.setattr(f"{module}.time", clock)
    return found


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path, said: list[str]) -> Callable[[], Path]:
    def call() -> Path:
        stack = given.config(
            given.toy(source={"hub": "o/m"}), paths={"state": str(tmp_path / "state")}, hub={"mirror": hub.url}
        )
        ensure_models(stack, tmp_path, said.append)
        return Path(given.plan(stack).engines[0].model_dir)

    return call


def nothing_is_served(tmp_path: Path) -> bool:
    return not (tmp_path / "state/models/o--m/unpinned").exists() and not (tmp_path / "state/models.lock").exists()


def whole(folder: Path, files: dict[str, bytes]) -> bool:
    return {path.name: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_transfer_that_is_cut_goes_on_where_it_was(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], files: dict[str, bytes], how: str
) -> None:
    hub.faults["/blobs/model"] = [Cut(2 * PIECE + 1, how)]
    assert whole(fetch(), files)
    first, again = hub.ranges(WEIGHTS)
    assert first is None
    # a reset may also throw away what was on its way
    assert again in ([f"bytes={2 * PIECE}-"] if how == "close" else [None, f"bytes={PIECE}-", f"bytes={2 * PIECE}-"])


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], files: dict[str, bytes]
) -> None:
    hub.faults["/blobs/model"], hub.ignores_ranges = [Cut(PIECE + 1)], True
    assert whole(fetch(), files)


def test_a_server_that_restarts_is_waited_for(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], files: dict[str, bytes]
) -> None:
    hub.faults["/blobs/model"] = [(503, {}), (502, {})]
    assert whole(fetch(), files)
    assert len(hub.ranges(WEIGHTS)) == 3


def test_a_hub_that_dies_ends_the_fetch_with_advice_and_the_next_one_goes_on(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.faults["/blobs/model"] = [Cut(PIECE + 1)] + [Cut(0)] * 20
    with pytest.raises(StackError, match=r"no answer, or it broke off.*goes on from there"):
        fetch()
    assert nothing_is_served(tmp_path)
    here = [path.name for path in next(tmp_path.rglob("*.partial")).iterdir() if path.suffix != ".incomplete"]
    hub.faults.clear()
    hub.asked.clear()
    assert whole(fetch(), files)
    assert hub.ranges(WEIGHTS) == [f"bytes={PIECE}-"]
    assert [name for name in here if hub.ranges(name)] == [], "what came whole is not asked for again"


def test_a_hub_that_does_not_answer_at_all_is_told_with_the_ways_around(
    fetch: Callable[[], Path], hub: Hub, slept: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(StackError, match=r"o/m could not be fetched from http://127\.0\.0\.1:1: no answer.*archive"):
        fetch()
    assert hub.asked == []
    assert nothing_is_served(tmp_path)


@pytest.mark.parametrize(("name", "kind"), [(WEIGHTS, "SHA-256"), ("config.json", "git SHA-1")])
def test_damaged_bytes_are_thrown_away_and_fetched_by_the_next_run(
    hub: Hub, fetch: Callable[[], Path], files: dict[str, bytes], tmp_path: Path, name: str, kind: str
) -> None:
    hub.corrupt = {name}
    with pytest.raises(StackError, match=rf"{name} of o/m came damaged: its {kind} is \w+, the hub says"):
        fetch()
    assert nothing_is_served(tmp_path)
    assert not list(tmp_path.rglob(f"{name}*"))
    hub.corrupt = set()
    assert whole(fetch(), files)


def test_damage_in_what_was_kept_is_found_and_mended_in_the_same_run(
    hub: Hub, fetch: Callable[[], Path], files: dict[str, bytes], tmp_path: Path
) -> None:
    part = tmp_path / f"state/models/o--m/unpinned.{hub.commit}.partial/{WEIGHTS}.incomplete"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"\0" * PIECE)
    assert whole(fetch(), files)
    assert hub.ranges(WEIGHTS) == [f"bytes={PIECE}-", None]


def test_a_newer_commit_begins_anew_and_the_older_half_is_cleared_away(
    hub: Hub, fetch: Callable[[], Path], files: dict[str, bytes], tmp_path: Path
) -> None:
    hub.corrupt = {"config.json"}
    with pytest.raises(StackError):
        fetch()
    hub.corrupt, hub.commit = set(), "d" * 40
    assert whole(fetch(), files)
    assert [path.name for path in (tmp_path / "state/models/o--m").iterdir()] == ["unpinned"]


@pytest.mark.parametrize("path", ["/api/", "/blobs/model"])
def test_a_busy_hub_is_waited_for_as_long_as_it_asks(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], files: dict[str, bytes], said: list[str], path: str
) -> None:
    hub.faults[path] = [(429, {"Retry-After": "7"}), (429, {"RateLimit": '"api";r=0;t=9'})]
    assert whole(fetch(), files)
    assert len([line for line in said if "again in" in line or "Waiting" in line]) == 2
    assert [round(seconds) for seconds in slept] in ([7, 9], [8, 10])  # the library adds one


def test_a_hub_that_stays_busy_ends_the_fetch(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], tmp_path: Path
) -> None:
    hub.faults["/blobs/model"] = [(429, {"Retry-After": "1"})] * 20
    with pytest.raises(StackError, match=r"too many requests \(429\)"):
        fetch()
    assert len(slept) <= 6
    assert nothing_is_served(tmp_path)


@pytest.mark.parametrize("path", ["/api/", "/blobs/model"])
def test_a_hub_that_asks_for_a_long_wait_is_not_waited_for(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], path: str
) -> None:
    hub.faults[path] = [(429, {"Retry-After": "86400"})]
    with pytest.raises(StackError, match="no more requests for 86400 s"):
        fetch()
    assert slept == []


def test_cuts_and_waits_are_told_in_one_line_each(
    hub: Hub, fetch: Callable[[], Path], slept: list[float], said: list[str]
) -> None:
    hub.faults["/blobs/model"] = [Cut(PIECE + 1)]
    fetch()
    assert [line for line in said if "Error while downloading" in line and "\n" not in line]
    assert "fetching o/m" in said[0]
    assert "100 %" in said[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of less than the model at the state folder."""
    folder = tmp_path / "state"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a disk that fills up needs the right to mount one: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_meanwhile_is_told_and_the_next_run_goes_on(
    small_disk: Path, hub: Hub, fetch: Callable[[], Path], files: dict[str, bytes],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # somebody else takes the room after it was looked at
    monkeypatch.setattr("stack.disk_space.shutil.disk_usage", lambda _: SimpleNamespace(free=2**40))
    with pytest.raises(StackError, match=r"the disk is full .*Make room.*goes on from there"):
        fetch()
    assert nothing_is_served(tmp_path)
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    hub.asked.clear()
    assert whole(fetch(), files)
    assert hub.ranges(WEIGHTS) != [None], "what came before is used"


def test_a_quota_is_a_full_disk_too() -> None:
    from stack.models.hub_errors import explain  # noqa: PLC0415

    error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert "the disk is full" in explain(error, "o/m", "https://h", has_token=False)


def command(tmp_path: Path, hub: Hub) -> subprocess.Popen[str]:
    stack = tmp_path / "stack.yaml"
    stack.write_text(
        "device: cpu\nmodels: [{served_model_name: m, source: {hub: o/m}}]\n"
        f"paths: {{state: {tmp_path}/state}}\nhub: {{mirror: '{hub.url}'}}\n"
    )
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts/fetch_model.py"), str(stack), "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def begun(tmp_path: Path, hub: Hub) -> subprocess.Popen[str]:
    """The command in the middle of a file: a piece of it is on disk."""
    hub.files[WEIGHTS] = weights(OWN_PIECE + 2**20)
    hub.faults["/blobs/model"] = [Cut(OWN_PIECE + 1, "hold")]
    process = command(tmp_path, hub)
    part = tmp_path / f"state/models/o--m/unpinned.{hub.commit}.partial/{WEIGHTS}.incomplete"
    deadline = time.monotonic() + 30
    while not (part.is_file() and part.stat().st_size >= OWN_PIECE) and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


def test_a_killed_fetch_leaves_nothing_to_serve_and_the_same_command_finishes_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = begun(tmp_path, hub)
    first.kill()
    first.communicate(timeout=10)
    assert nothing_is_served(tmp_path)
    code, out, err = run(monkeypatch, capsys, "fetch_model.py", str(tmp_path / "stack.yaml"), "--json")
    assert code == 0, err
    assert '"what": "fetched"' in out
    assert whole(tmp_path / "state/models/o--m/unpinned", hub.files)
    assert hub.ranges(WEIGHTS) == [None, f"bytes={OWN_PIECE}-"]


def test_an_interrupted_fetch_ends_at_once_and_without_a_traceback(hub: Hub, tmp_path: Path) -> None:
    process = begun(tmp_path, hub)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out) == (130, "")
    assert err.endswith("interrupted\n")
    assert nothing_is_served(tmp_path)
