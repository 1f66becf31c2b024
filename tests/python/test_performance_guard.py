# SPDX-License-Identifier: Apache-2.0
"""A decode step takes as many instructions as it did: a count that, unlike time, is the same on every
machine. callgrind shows programs a processor without AVX-512, so oneDNN and our kernels take AVX2."""

import os
import re
import subprocess

import cli_runs
import pytest
from maskkv_tools import bench_models

BENCH_STEP = cli_runs.ROOT / "build/release/bench/bench_step"
ROWS, ROUNDS, STEPPERS = 32, 4, 2  # of `bench_step growth` with one prompt length: both entries
# Of a row of a step of the model `tiny`, f32, half of the rows masked or more. A change of the kernels
# or of the engine may move it: set it anew, with a line in CHANGELOG.md that says why.
INSTRUCTIONS_A_ROW = 182_000
TOLERANCE = 0.05


def test_a_step_takes_as_many_instructions_as_it_did(tmp_path):
    model = bench_models.folder("tiny", tmp_path)
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={tmp_path / 'out'}",
               "--toggle-collect=maskkv::engine::Decoder::Step()", BENCH_STEP, "growth", "--model",
               model, "--prompts", "64", "--rounds", ROUNDS, "--rows", ROWS, "--threads", "1",
               "--dtype", "f32"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False,
                          env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"})
    assert done.returncode == 0, done.stderr[-2000:]
    collected = int(re.search(r"Collected : (\d+)", done.stderr)[1])
    a_row = collected / (STEPPERS * ROUNDS * ROWS)
    assert a_row == pytest.approx(INSTRUCTIONS_A_ROW, rel=TOLERANCE), (
        f"expected {INSTRUCTIONS_A_ROW} instructions a row, found {a_row:.0f}")
