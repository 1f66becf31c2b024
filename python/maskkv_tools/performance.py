# SPDX-License-Identifier: Apache-2.0
"""Measures every row of the table of docs/performance.md, peers in the same run, and prints row,
figure, bar and machine. scripts/bench runs it.

    python -m maskkv_tools.performance --json build/performance.json
    python -m maskkv_tools.performance --rows batches,canvas   groups of rows, see --help

A row whose feature or peer is not there is printed as not measured, with the reason, and does not
hold. The exit code tells only whether measuring worked.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

from maskkv_tools import bench_models, performance_features, performance_rows
from maskkv_tools.performance_rows import Bar

# OpenMP's threads spin between two products but not into the engine's turn.
_OPENMP = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "20000"}
TORCH_REQUIREMENTS = pathlib.Path("python/requirements-train.txt")
# The peer's logits against the float64 oracle, relative: f32 tells that it computes the same function,
# bf16 that its rounding is that of bf16 (2^-9 an operation, some dozen operations a layer).
TORCH_BOUNDS = {"f32": 1e-4, "bf16": 0.05}


class Machine:
    """Programs, models and sizes of a run. quick: everything small, to test the bench itself."""

    def __init__(self, args):
        self.args, self.quick, self.threads = args, args.quick, args.threads
        self.raw = {}  # what bench_step measured, by group

    def model(self, name):
        return str(bench_models.folder("tiny" if self.quick else name, self.args.models))

    def shape(self, name):
        return bench_models.SHAPES["tiny" if self.quick else name]

    def tokens(self, count):
        return max(64, count // 128) if self.quick else count

    def _command(self, mode, model, flags):
        return [str(self.args.bench_step), mode, "--model", self.model(model), "--threads",
                str(self.threads), *map(str, flags)]

    def step(self, group, mode, model, *flags):
        """What bench_step prints; kept as raw[group]."""
        done = subprocess.run(self._command(mode, model, flags), stdout=subprocess.PIPE, text=True,
                              check=False, env=os.environ | _OPENMP)
        if done.returncode != 0:
            raise SystemExit(f"bench_step {mode}: exit code {done.returncode}")  # it has said why
        self.raw[group] = json.loads(done.stdout)
        return self.raw[group]

    def server(self, *command):
        return subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, text=True)

    def prefill_server(self, model):
        return self.server(*self._command("serve", model, ()))


def growth(m):
    prompts = ",".join(str(m.tokens(n)) for n in (1024, 4096, 32768))
    return performance_rows.step_growth(m.step("growth", "growth", "S", "--prompts", prompts))


def canvas(m):
    raw = m.step("canvas", "canvas", "S", "--prompts", m.tokens(4096), "--rounds", 16,
                 "--full-steps", 2)
    return performance_rows.full_canvas(m.shape("S"), raw)


def end_to_end(m):
    raw = m.step("end-to-end", "canvas", "S", "--prompts", m.tokens(32768), "--rows", 128,
                 "--prefill")
    return performance_rows.end_to_end(m.shape("S"), raw)


def batches(m):
    rows = []
    for name in ("S", "M"):
        group = f"batches-{name}"
        raw = m.step(group, "batches", name, "--batches", "1x32,8x16,1x16", "--rounds",
                     8 if m.quick else 48, "--prompts", m.tokens(4096))
        raw["batch_rows"] = 16
        rows += performance_rows.step_products(name, raw, ("1x32", "8x16"))
        rows += performance_rows.batch_rate(name, raw)
    return rows


def attention(m):
    raw = m.step("rates", "rates", "S", "--prompts",
                 ",".join(str(m.tokens(n)) for n in (1024, 4096, 8192)))
    amx = "amx_bf16" in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    shape = m.shape("S")
    return performance_rows.prefill_attention(raw, shape.hidden // shape.heads, amx)


def memory(m):
    raw = m.step("memory", "memory", "L", "--prompts", m.tokens(32768))
    return performance_rows.prefill_memory(raw, layers=32)


def torch_python(args):
    """The interpreter that has PyTorch; its environment is made if it is missing."""
    if args.torch_python is not None:
        return args.torch_python
    venv = pathlib.Path("build/torch-venv")
    wanted, stamp = TORCH_REQUIREMENTS.read_bytes(), venv / "requirements.installed"
    if not stamp.exists() or stamp.read_bytes() != wanted:
        print(f"installing {TORCH_REQUIREMENTS} into {venv}", file=sys.stderr)
        subprocess.run(["/usr/bin/python3", "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "-r",
                        TORCH_REQUIREMENTS], check=True)
        stamp.write_bytes(wanted)
    return venv / "bin/python"


def ask(server, tokens):
    print(tokens, file=server.stdin, flush=True)
    line = server.stdout.readline()
    if not line:
        raise SystemExit("a prefill server ended")  # it has said why
    return json.loads(line)["prefill_s"]


def torch_prefill(m):
    """Prefills of both in turn, each process idle in the other's."""
    peer = [str(torch_python(m.args)), "-m", "maskkv_tools.torch_peer", "--threads", str(m.threads)]
    checked = subprocess.run([*peer, "--model", bench_models.folder("tiny", m.args.models),
                              "--check"], stdout=subprocess.PIPE, text=True, check=True)
    errors = json.loads(checked.stdout)
    for name, bound in TORCH_BOUNDS.items():
        if not errors[name] <= bound:
            raise SystemExit(f"PyTorch peer, {name}: expected logits within {bound} of the "
                             f"oracle's, found {errors[name]}")
    turns = {m.tokens(4096): 3, m.tokens(16384): 1}
    bars = dict(zip(turns, (Bar(1.1), Bar(1.3)), strict=True))
    measured = {}
    with m.prefill_server("S") as ours, m.server(*peer, "--model", m.model("S")) as theirs:
        for server in (ours, theirs):
            ask(server, m.tokens(4096) // 4)  # loads, allocates, compiles
        for tokens, count in turns.items():
            times = measured[tokens] = {"ours": [], "torch": []}
            for _ in range(count):
                times["ours"].append(ask(ours, tokens))
                times["torch"].append(ask(theirs, tokens))
        for server in (ours, theirs):
            server.stdin.close()
    m.raw["torch"] = {"errors": errors, "seconds": measured}
    return performance_rows.torch_prefill(measured, bars)


GROUPS = {
    "growth": growth, "canvas": canvas, "batches": batches, "attention": attention,
    "memory": memory, "response-cache": performance_features.response_cache,
    "int8-weights": performance_features.int8_weights, "int8-kv": performance_features.int8_kv,
    "load": performance_features.load, "llada-8b": performance_features.llada_8b,
    "torch": torch_prefill, "end-to-end": end_to_end,
}


def text_table(rows, machine):
    lines = [f"machine: {machine}"]
    for row in rows:
        figure = "not measured" if row.figure is None else f"{row.figure:.3g}"
        lines.append(f"{'holds' if row.holds else 'MISSED' if row.figure is not None else '-':6} "
                     f"{row.name:26} {figure:>12}  {row.bar!s:8}  {row.what}")
        if row.note:
            lines.append(f"{'':57}{row.note}")
    return "\n".join(lines)


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return f"{line.partition(': ')[2]}, {os.cpu_count()} cores"
    return f"{os.cpu_count()} cores"


def measure(args):
    machine = Machine(args)
    rows = []
    # A test of the bench installs no PyTorch.
    wanted = args.rows or [name for name in GROUPS if not (args.quick and name == "torch")]
    for name in wanted:
        start = time.monotonic()
        print(f"== {name}", file=sys.stderr, flush=True)
        rows += GROUPS[name](machine)
        print(f"   {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return rows, machine.raw


def _groups(text):
    names = text.split(",")
    for name in names:
        if name not in GROUPS:
            raise argparse.ArgumentTypeError(f"expected {', '.join(GROUPS)}, found {name}")
    return names


def main(argv=None):
    p = argparse.ArgumentParser(prog="python -m maskkv_tools.performance", description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rows", type=_groups, help=f"groups of rows: {', '.join(GROUPS)}; default all")
    p.add_argument("--quick", action="store_true", help="a tiny model, as a test")
    p.add_argument("--json", type=pathlib.Path, help="rows and raw measurements")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--torch-python", type=pathlib.Path,
                   help="an interpreter with PyTorch, instead of build/torch-venv")
    p.add_argument("--models", type=pathlib.Path, default=pathlib.Path("build/bench-models"))
    p.add_argument("--bench-step", type=pathlib.Path, help=argparse.SUPPRESS,
                   default=pathlib.Path("build/release/bench/bench_step"))
    p.add_argument("--bin", type=pathlib.Path, help=argparse.SUPPRESS,
                   default=pathlib.Path("build/release/bin/maskkv"))
    args = p.parse_args(argv)
    rows, raw = measure(args)
    print(text_table(rows, processor()))
    if args.json:
        report = {"machine": processor(), "threads": args.threads, "quick": args.quick,
                  "rows": [row.record() for row in rows], "raw": raw}
        args.json.write_text(json.dumps(report) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
