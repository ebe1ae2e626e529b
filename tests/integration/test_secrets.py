"""Secrets of the running stack: where they are, where they are not, and what becomes of them."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from integration.conftest import ENGINES, PROJECT, ROOT, STACK_FILE, STATE, URL, Stack
from stack.docker_host import address, containers
from stack.ownership import ENGINE_UID, HAPROXY_UID, NGINX_UID, WATCH_UID
from stack.secrets import engine_key

BODY = {"model": "toy", "prompt": "x", "max_tokens": 2}


def secret_files(stack: Stack) -> dict[Path, int]:
    """Every file with a secret in it -> the uid that reads it."""
    secrets, here = stack.state / "secrets", os.geteuid()
    files = dict.fromkeys((secrets / "api-keys").iterdir(), here) | {engine_key.key_file(stack.state): here}
    files |= dict.fromkeys((secrets / "engine").iterdir(), ENGINE_UID)
    files |= dict.fromkeys((secrets / "haproxy").iterdir(), HAPROXY_UID)
    files |= dict.fromkeys((stack.state / "probe").glob("*key"), WATCH_UID)
    return files | dict.fromkeys((stack.state / "tls").glob("*.key"), NGINX_UID)


def values(stack: Stack) -> dict[str, bytes]:
    """Name -> a value that nobody may find."""
    found = {path.name: path.read_bytes().strip() for path in (stack.state / "secrets/api-keys").iterdir()}
    found["engine key"] = stack.engine_key.encode()
    for path in (stack.state / "tls").glob("*.key"):
        found[path.name] = path.read_bytes().splitlines()[1]  # base64: a line of it is enough
    assert len(found) >= 4
    assert all(len(value) > 30 for value in found.values())
    return found


def places(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """(what it is, content) of all that is rendered, kept, run, shown or logged, but the secrets' own files."""
    own = set(secret_files(stack))
    for folder in (STATE, ROOT / "build"):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path not in own and "/cache/" not in str(path):
                yield str(path), path.read_bytes()
    yield str(STACK_FILE), STACK_FILE.read_bytes()
    for name, container in containers(stack.client, PROJECT).items():
        yield f"docker inspect {name}", json.dumps(stack.client.api.inspect_container(container.id or "")).encode()
        yield f"log of {name}", container.logs()
        yield f"processes of {name}", json.dumps(container.top()).encode()
    for process in Path("/proc").glob("[0-9]*"):
        for kind in ("cmdline", "environ"):
            try:
                yield str(process / kind), (process / kind).read_bytes()
            except OSError:
                continue  # it ended meanwhile


def direct(stack: Stack, engine: str, key: str | None) -> int:
    """Status of a completion that is asked of an engine itself."""
    where = address(containers(stack.client, PROJECT)[engine], "engines")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return requests.post(f"http://{where}:8000/v1/completions", json=BODY, headers=headers, timeout=60).status_code


def test_each_secret_is_one_file_of_mode_0400_of_the_user_that_reads_it(stack: Stack) -> None:
    files = secret_files(stack)
    assert len({path.parent for path in files}) == 6
    for path, uid in files.items():
        assert (stat.S_IMODE(path.lstat().st_mode), path.lstat().st_uid) == (0o400, uid), path
    for folder in (stack.state / "secrets", stack.state / "secrets/api-keys"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_no_value_is_anywhere_but_in_its_own_file(stack: Stack) -> None:
    needles, searched, found = values(stack), 0, []
    for place, content in places(stack):
        searched += 1
        found += [f"{name} in {place}" for name, value in needles.items() if value in content]
    print(f"\n{len(needles)} values looked for in {searched} places")
    assert not found
    own = b"".join(path.read_bytes() for path in secret_files(stack))
    assert all(value in own for value in needles.values()), "what was looked for is what is kept"
    assert searched > 100


def test_an_engine_answers_who_has_its_key_and_no_client_has_it(stack: Stack) -> None:
    for engine in ENGINES:
        keys = (None, stack.key, "sk-wrong", stack.engine_key)
        assert [direct(stack, engine, key) for key in keys] == [401, 401, 401, 200]
    headers = {"Authorization": f"Bearer {stack.engine_key}"}
    answer = requests.post(f"{URL}/v1/completions", json=BODY, headers=headers, verify=str(stack.ca_file), timeout=60)
    assert answer.status_code == 401


def test_up_mends_modes_and_owners_and_missing_copies_and_restarts_nothing(stack: Stack) -> None:
    before, files = stack.started(), secret_files(stack)
    for path in files:
        path.chmod(0o644)
        os.chown(path, 1234, 1234)
    (stack.state / "secrets").chmod(0o755)
    lost = next(path for path in files if path.suffix == ".map")
    lost.unlink()
    done = stack.script("up")
    assert (done.code, done.out.startswith("Nothing changed")) == (0, True), done.err
    assert stack.started() == before
    test_each_secret_is_one_file_of_mode_0400_of_the_user_that_reads_it(stack)
    assert lost.exists()


@pytest.mark.parametrize("name", ["secrets/api-keys/second", "secrets/engine-key.json", "a private key"])
@pytest.mark.parametrize("damage", ["a folder", "noise", "half of it"])
def test_a_secret_that_cannot_be_read_is_bad_input_and_nothing_is_touched(stack: Stack, name: str, damage: str) -> None:
    path = next((stack.state / "tls").glob("*.key")) if name == "a private key" else stack.state / name
    before, kept = stack.started(), path.with_name("kept-by-the-test")
    content = path.read_bytes()
    path.rename(kept)
    try:
        if damage == "a folder":
            path.mkdir()
        else:
            path.write_bytes(b"\xff\xfe\x00 noise" if damage == "noise" else content[:9])
        for command in ("up", "secrets_rotate") if "engine" in name else ("up",):
            done = stack.script(command)
            assert (done.code, str(path) in done.err, done.out) == (2, True, ""), done.err
            assert "Traceback" not in done.err
        assert stack.started() == before
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        kept.rename(path)
    done = stack.script("up")
    assert (done.code, done.out.startswith("Nothing changed")) == (0, True), done.err
    assert stack.started() == before
