# SPDX-License-Identifier: Apache-2.0
"""Runs a Python program that a model wrote, apart from this machine. docs/evaluation.md says what
that prevents and what it does not.

Strict: new mount, network and process namespaces (and a user namespace where we are not root); the
root is a small read-only tree with the interpreter alone, /tmp is 16 MiB of memory, there are no
capabilities.
Weak: the limits and an empty folder, as nobody if we are root. Both: python -I, no environment,
limits on CPU time, memory, file size and processes, a deadline.
"""

import functools
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass

OUTPUT_BYTES = 1 << 20
NOBODY = 65534

# The interpreter reads this from its command line, the program from its standard input. Only a
# program that came to its end prints the word.
_LAUNCHER = """
import os, resource, signal, sys
word, cpu, memory, size = sys.argv[1], *map(int, sys.argv[2:5])
source = sys.stdin.read()
signal.signal(signal.SIGXCPU, lambda *_: os._exit(128 + signal.SIGXCPU))
resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))
for what, most in ((resource.RLIMIT_AS, memory),
                   (resource.RLIMIT_FSIZE, size), (resource.RLIMIT_CORE, 0),
                   (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_NPROC, 0)):
    resource.setrlimit(what, (most, most))
sys.argv = ["program.py"]
exec(compile(source, "program.py", "exec"), {"__name__": "__main__"})
print("\\n" + word, flush=True)
"""

# $1: an empty folder; $2: the interpreter; $3: its prefix; $4: flags of setpriv; then arguments.
_INSIDE = """
set -e
root=$1 python=$2 prefix=$3 drop=$4
shift 4
mount -t tmpfs -o size=1m,mode=755,nosuid,nodev none "$root"
for path in /usr /bin /lib /lib64 /etc/ld.so.cache "$prefix"; do
  [ -e "$path" ] && [ ! -e "$root$path" ] || continue
  if [ -L "$path" ]; then
    ln -s "$(readlink "$path")" "$root$path"
    continue
  elif [ -d "$path" ]; then
    mkdir -p "$root$path"
  else
    mkdir -p "$root${path%/*}"
    : > "$root$path"
  fi
  mount --bind "$path" "$root$path"
  mount -o remount,bind,ro "$root$path"
done
mkdir "$root/tmp"
mount -t tmpfs -o size=16m,nr_inodes=1k,mode=1777,nosuid,nodev none "$root/tmp"
mount -o remount,bind,ro "$root"
cd "$root"
# A change of user forgets the signal that unshare asked for.
exec chroot . setpriv $drop --bounding-set=-all --inh-caps=-all --no-new-privs --pdeathsig KILL \
  sh -c 'cd /tmp && exec "$@"' sh "$python" "$@"
"""


@dataclass(frozen=True)
class Limits:
    seconds: float = 10.0
    cpu_seconds: int = 5
    memory_bytes: int = 512 << 20
    file_bytes: int = OUTPUT_BYTES


@dataclass(frozen=True)
class Outcome:
    """status: "passed" (ran to its end), "failed" (ended before) or "timeout"."""

    status: str
    detail: str = ""  # the last line it wrote to its standard error

    @property
    def passed(self):
        return self.status == "passed"


def _interpreter():
    """The interpreter itself, without a virtual environment, and where it is installed."""
    path = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return path, os.path.realpath(sys.base_prefix)


def _strict(root, arguments):
    python, prefix = _interpreter()
    if os.geteuid() == 0:  # a limit on processes does not hold for root
        user, drop = [], f"--reuid={NOBODY} --regid={NOBODY} --clear-groups"
    else:
        user, drop = ["--user", "--map-root-user"], ""
    return ["unshare", *user, "--mount", "--net", "--ipc", "--uts", "--pid", "--fork",
            "--kill-child", "sh", "-c", _INSIDE, "sh", root, python, prefix, drop, *arguments]


def run(program, strict=True, limits=Limits()):
    """The Outcome of a program's text."""
    word = secrets.token_hex(16)
    arguments = ["-I", "-c", _LAUNCHER, word, str(limits.cpu_seconds), str(limits.memory_bytes),
                 str(limits.file_bytes)]
    with tempfile.TemporaryDirectory(prefix="maskkv-eval-") as folder:
        work = pathlib.Path(folder, "work")
        work.mkdir()
        (source := pathlib.Path(folder, "program.py")).write_text(program, encoding="utf-8")
        command = _strict(str(work), arguments) if strict else [_interpreter()[0], *arguments]
        command = ["setpriv", "--pdeathsig", "KILL", *command]  # nothing outlives us
        other = {}
        if not strict and os.geteuid() == 0:
            os.chown(work, NOBODY, NOBODY)
            other = {"user": NOBODY, "group": NOBODY, "extra_groups": ()}
        # Files, not pipes: a program that writes without end meets the limit on a file's size.
        with (open(source, "rb") as given, open(f"{folder}/out", "w+b") as out,
              open(f"{folder}/err", "w+b") as err):
            child = subprocess.Popen(
                command, stdin=given, stdout=out, stderr=err, cwd=work, start_new_session=True,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8",
                     "PYTHONHASHSEED": "0"}, **other)
            try:
                code = child.wait(limits.seconds)
            except subprocess.TimeoutExpired:
                return Outcome("timeout", f"{limits.seconds:g} s")
            finally:
                _end(child)
            said = [_tail(file) for file in (out, err)]
    if code == 0 and said[0] == word:
        return Outcome("passed")
    if code == 128 + signal.SIGXCPU:
        return Outcome("timeout", f"{limits.cpu_seconds} s of CPU")
    return Outcome("failed", said[1] or f"exit code {code}")


def _end(child):
    """Kills what is left of the child's session; in strict mode that ends every process in it."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _tail(file):
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
    lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""


@functools.cache
def why_not_strict():
    """What this machine does not permit; "" where strict runs work."""
    try:
        outcome = run("pass")
    except FileNotFoundError as error:
        return f"{error.filename} is not installed"
    return "" if outcome.passed else outcome.detail
