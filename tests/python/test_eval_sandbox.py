# SPDX-License-Identifier: Apache-2.0
"""Programs that misbehave, in the sandbox. The strict ones need what the kernel here permits."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from maskkv_eval import sandbox

LIMITS = sandbox.Limits(seconds=60, cpu_seconds=1, memory_bytes=256 << 20)
STRICT = pytest.param(True, id="strict", marks=pytest.mark.skipif(
    bool(sandbox.why_not_strict()), reason=f"not permitted: {sandbox.why_not_strict()}"))
BOTH = pytest.mark.parametrize("strict", [STRICT, pytest.param(False, id="weak")])


def run(program, strict, **limits):
    return sandbox.run(program, strict, sandbox.Limits(**{**vars(LIMITS), **limits}))


@BOTH
def test_a_program_that_ends_passes(strict):
    assert run("import math\nassert math.gcd(12, 18) == 6", strict) == sandbox.Outcome("passed")


@BOTH
@pytest.mark.parametrize("program, status, detail", [
    ("1 / 0", "failed", "ZeroDivisionError"),
    ("def (", "failed", "SyntaxError"),
    ("raise SystemExit(0)", "failed", "exit code 0"),
    ("import os\nos._exit(0)", "failed", "exit code 0"),
    ("while True: pass", "timeout", "1 s of CPU"),
    ("try:\n    while True: pass\nexcept BaseException: pass\nwhile True: pass", "timeout", "CPU"),
    ("x = bytearray(1 << 30)", "failed", "MemoryError"),
    ("import os\nos.fork()", "failed", "Resource temporarily unavailable"),
    ("import threading\nthreading.Thread(target=print).start()", "failed", "start new thread"),
    ("import subprocess\nsubprocess.run(['true'])", "failed", "Resource temporarily unavailable"),
    ("open('f', 'w').write('a' * (2 << 20))", "failed", "File too large"),
    ("while True: print('a' * 9999)", "failed", "File too large"),
    ("open('/usr/made-by-a-test', 'w')", "failed", "OSError|PermissionError"),
    ("import os\nassert 'HOME' not in os.environ, 'HOME'", "passed", ""),
    ("import sys\nassert sys.flags.isolated, 'not isolated'", "passed", ""),
    ("import os\nassert os.listdir() == [], os.listdir()", "passed", ""),
])
def test_a_program_that_misbehaves(strict, program, status, detail):
    outcome = run(program, strict)
    assert outcome.status == status, outcome
    assert any(part in outcome.detail for part in detail.split("|")), outcome


@BOTH
def test_a_program_that_waits_meets_the_deadline(strict):
    outcome = run("import signal\nsignal.pause()", strict, seconds=2)
    assert outcome == sandbox.Outcome("timeout", "2 s")


@BOTH
def test_a_program_can_write_in_its_own_folder(strict):
    assert run("open('f', 'w').write('a')\nassert open('f').read() == 'a'", strict).passed


@pytest.mark.parametrize("strict", [STRICT])
def test_the_files_of_this_machine_are_not_there(strict, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s")
    os.chmod(secret, 0o644)
    assert "FileNotFoundError" in run(f"open({str(secret)!r})", strict).detail
    assert "FileNotFoundError" in run("open('/etc/passwd')", strict).detail
    assert "FileNotFoundError" in run("open('/proc/1/environ')", strict).detail
    assert "Read-only file system" in run("open('/made-by-a-test', 'w')", strict).detail


@pytest.mark.parametrize("strict", [STRICT])
def test_there_is_no_network(strict):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        outcome = run(f"import socket\nsocket.create_connection(('127.0.0.1', {port}))", strict)
    assert "Network is unreachable" in outcome.detail or "refused" in outcome.detail, outcome


@pytest.mark.parametrize("strict", [STRICT])
def test_the_root_cannot_be_made_writable_again(strict):
    remount = ("import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
               "code = libc.mount(None, b'/usr', None, 32 | 4096, None)\n"  # REMOUNT, BIND
               "assert code == 0, os.strerror(ctypes.get_errno())")
    assert "Operation not permitted" in run(remount, strict).detail


@pytest.mark.parametrize("strict", [STRICT])
def test_its_folder_is_small(strict):
    fill = "for i in range(32): open(str(i), 'w').write('a' * (1 << 20))"
    assert "No space left on device" in run(fill, strict).detail


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    run("open('f', 'w')", False)
    run("while True: print('a' * 9999)", not sandbox.why_not_strict())
    assert list(tmp_path.iterdir()) == []


# Runs a program that waits, its output to whoever started us.
WAITS = """
import sys
from maskkv_eval import sandbox

class Popen(sandbox.subprocess.Popen):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{**kwargs, "stdout": sys.stdout})

sandbox.subprocess.Popen = Popen
program = "import signal; print('runs', flush=True); signal.pause()"
sandbox.run(program, sys.argv[1] == "True", sandbox.Limits(seconds=3600))
"""


@BOTH
def test_a_program_does_not_outlive_the_evaluation(strict, tmp_path):
    python = Path(sandbox.__file__).resolve().parents[1]
    evaluation = subprocess.Popen([sys.executable, "-c", WAITS, str(strict)], text=True,
                                  stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": python,
                                                               "TMPDIR": str(tmp_path)})
    assert evaluation.stdout.readline() == "runs\n"
    evaluation.send_signal(signal.SIGKILL)
    # The output ends when the last process that holds it does.
    assert evaluation.communicate(timeout=60) == ("", None)
