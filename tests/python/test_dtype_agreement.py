# SPDX-License-Identifier: Apache-2.0
"""Answers with int8 weights are those with f32 weights, on both embedded models."""

import cli_runs
import pytest
from maskkv_tiny import world
from maskkv_tools import dtype_agreement


def test_tokens_are_counted_by_position_and_up_to_the_first_end():
    pairs = [(([7, 8], [7, 8, 0, 0]), ([7, 8], [7, 8, 0, 1])),
             (([5], [5, 0, 0, 0]), ([6, 9], [6, 9, 0, 0]))]
    assert dtype_agreement.count(pairs) == {
        "questions": 2, "equal_answers": 1, "tokens": 3, "equal_tokens": 2, "positions": 8,
        "equal_positions": 5}


# docs/int8.md has the same of 240 questions, of which these are the first 16. They hold some twenty
# answer tokens, too few to tell 99 % of: one may differ. Of all positions 99 % agree.
@pytest.mark.parametrize("model", ["tiny-llada", "tiny-dream"])
def test_int8_weights_answer_as_f32_weights_do(model):
    questions = world.records("test", 16, 1000, 1, 0.0, None)
    found = dtype_agreement.measure(cli_runs.binary(), cli_runs.ROOT / "models" / model, questions,
                                    "int8", ["--gen-length", "8", "--cache", "full"])
    assert found["questions"] == 16 and found["positions"] == 128
    assert found["equal_tokens"] >= found["tokens"] - 1
    assert found["equal_positions"] >= 0.99 * found["positions"]
