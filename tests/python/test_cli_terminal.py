# SPDX-License-Identifier: Apache-2.0
"""maskkv on a terminal and under signals."""

import errno
import fcntl
import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

from cli_runs import TIMEOUT_S, TINY, binary

MASK = "·"
CONTROL = re.compile(r"\x1b\[[0-9]*[A-Za-z]|\r")


def start_on_terminal(*args):
    """(process, the terminal's other end) of a run whose output and errors are a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen([str(binary()), *map(str, args)], stdin=subprocess.DEVNULL,
                               stdout=follower, stderr=follower)
    os.close(follower)
    return process, leader


def read_terminal(leader, until=None):
    """What the terminal shows until it is closed, or until `until` was seen."""
    seen, deadline = b"", time.monotonic() + TIMEOUT_S
    while until is None or until not in seen:
        ready, _, _ = select.select([leader], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"nothing more within {TIMEOUT_S} s after {seen[-200:]!r}"
        try:
            data = os.read(leader, 1 << 16)
        except OSError as error:  # how Linux reports that the last writer is gone
            assert error.errno == errno.EIO
            break
        if not data:
            break
        seen += data
    return seen


def test_the_canvas_denoises_live(tiny):
    text = tiny.generate("--json").json["text"]
    process, leader = start_on_terminal("generate", *tiny.args("--gen-length", 8))
    shown = read_terminal(leader).decode()
    os.close(leader)
    assert process.wait(TIMEOUT_S) == 0
    frames = CONTROL.sub("", shown)
    assert MASK * 2 in frames, "masks are shown"
    assert "1/8 tokens decided" in frames, "a progress line"
    assert "\x1b[" in shown, "redrawn in place"
    last = frames[frames.rindex("decided"):]
    assert text in last and MASK not in last and "tokens/s" in last
    assert shown.endswith("\n")


def test_json_on_a_terminal_is_json_alone(tiny):
    process, leader = start_on_terminal("generate", *tiny.args("--gen-length", 8, "--json"))
    shown = read_terminal(leader).decode()
    os.close(leader)
    assert process.wait(TIMEOUT_S) == 0
    assert shown.startswith('{"prompt_tokens":') and shown.rstrip().endswith("}}")


def test_calibrate_shows_a_progress_bar_on_a_terminal(tmp_path):
    process, leader = start_on_terminal(
        "calibrate", "--model", TINY, "--prompts", TINY / "calibration.jsonl", "--samples", 2,
        "--output", tmp_path / "profile.json")
    shown = read_terminal(leader).decode()
    os.close(leader)
    assert process.wait(TIMEOUT_S) == 0
    assert "1/2 prompts" in shown and "2 samples" in shown


def test_an_interrupted_answer_exits_with_130(tiny):
    args = tiny.args("--gen-length", 4096, "--ignore-eos", "--cache", "full")
    process, leader = start_on_terminal("generate", *args)
    read_terminal(leader, until=b"tokens decided")
    assert_no_thread_runs_handlers(process.pid)
    process.send_signal(signal.SIGINT)
    shown = read_terminal(leader).decode()
    os.close(leader)
    assert process.wait(TIMEOUT_S) == 130
    assert shown.endswith("\nmaskkv: interrupted\r\n"), "on a line of its own"


def assert_no_thread_runs_handlers(pid):
    """A handler's frame on the stack of a thread inside a GEMM overwrites heap memory (matmul.h)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    caught = int(re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)[1], 16)
    for number in (signal.SIGINT, signal.SIGTERM):
        assert not caught >> (number - 1) & 1, f"signal {number} has a handler"


def test_an_interrupted_wait_for_standard_input_exits_with_130():
    process = subprocess.Popen(
        [str(binary()), "generate", "--model", str(TINY), "--document", "-", "--cache", "none"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_until_reading(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(TIMEOUT_S) == 130
    assert process.stdout.read() == b""
    assert process.stderr.read() == b"maskkv: interrupted\n"
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


def wait_until_reading(process):
    """Feeds the pipe and returns once the process has taken it: its handlers are installed then."""
    process.stdin.write(b"x" * 100)
    process.stdin.flush()
    deadline = time.monotonic() + TIMEOUT_S
    while waiting_bytes(process.stdin) > 0:
        assert time.monotonic() < deadline and process.poll() is None


def waiting_bytes(pipe):
    return struct.unpack("i", fcntl.ioctl(pipe, termios.FIONREAD, b"\0" * 4))[0]
