"""Secrets are rotated under load, by a command that is killed on the way: five starts of an engine."""

from __future__ import annotations

import signal
import subprocess
import sys

from integration import test_secrets as secrets
from integration.conftest import ENGINES, ROOT, STACK_FILE, URL, Stack
from integration.load import Load
from stack.secrets import engine_key


def test_a_rotation_that_was_killed_is_finished_by_the_next_and_no_request_fails(stack: Stack) -> None:
    old, before, files = stack.engine_key, stack.started(), len(secrets.secret_files(stack))
    command = [sys.executable, str(ROOT / "scripts/secrets_rotate.py"), str(STACK_FILE)]
    with Load(URL, stack.key, stack.ca_file, "toy", workers=4, tokens=16, pause=0.25) as load:
        load.wait_for(10, seconds=60)
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr
            said: list[str] = []
            while "replacing engine-toy-1" not in "".join(said[-1:]):
                line = process.stderr.readline()
                assert line, "it ended before it could be killed:\n" + "".join(said)
                said.append(line)
            process.send_signal(signal.SIGKILL)
        half = engine_key.load(stack.state)
        assert half
        assert (half.rotating, half.step, half.sends) == (True, 1, old)
        done = stack.script("secrets_rotate")
        assert (done.code, "going on with a rotation" in done.err) == (0, True), done.err
        load.wait_for(40, seconds=60)
    print(f"\na rotation killed in the middle and finished, both replicas replaced twice:\n{load.table()}")
    assert len(load.answers) >= 1000
    assert not load.failures("whole") + load.failures("stream"), load.table()
    after = engine_key.load(stack.state)
    assert after
    assert (after.rotating, after.accepts, old in after.accepts) == (False, (after.sends,), False)
    for engine in ENGINES:
        assert [secrets.direct(stack, engine, key) for key in (old, after.sends)] == [401, 200]
    again = stack.started()
    assert {name for name in before if again[name] != before[name]} == set(ENGINES), "others were restarted"
    secrets.test_each_secret_is_one_file_of_mode_0400_of_the_user_that_reads_it(stack)
    assert len(secrets.secret_files(stack)) == files, "no old copy is left"
    secrets.test_no_value_is_anywhere_but_in_its_own_file(stack)
    assert stack.script("up").out.startswith("Nothing changed")
