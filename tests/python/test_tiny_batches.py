# SPDX-License-Identifier: Apache-2.0
"""Training rows of both families: which row predicts which token, and who sees the document."""

import dataclasses

import numpy as np
import pytest

from maskkv_tiny import batches, families
from maskkv_tiny import tokenizer as tok


@dataclasses.dataclass(frozen=True)
class Stage:
    layout: str
    length: int = 200
    shortest: int = 0
    batch: int = 3
    questions: int = 5
    people: int | None = 3
    most_people: int = 12
    two_hop_share: float = 0.5
    answer_lengths: tuple = (4,)
    whole_share: float = 0.5


@pytest.fixture(scope="module", params=families.by_name())
def encoder(request):
    family = families.by_name()[request.param]
    return batches.Encoder(family, tok.train(family))


def predictions(rows, shift):
    """(row of the batch, position, token) of everything to be predicted."""
    for i, j in np.argwhere(rows.targets != batches.IGNORED):
        yield i, j + shift, rows.targets[i, j]


@pytest.mark.parametrize("layout", ["segments", "chat"])
@pytest.mark.parametrize("seed", range(4))
def test_exactly_the_masks_are_predicted_by_the_row_that_the_family_says(encoder, layout, seed):
    rows = batches.build(encoder, Stage(layout), "train", seed)
    predicted = {(i, j) for i, j, _ in predictions(rows, encoder.shift)}
    assert predicted == set(map(tuple, np.argwhere(rows.ids == encoder.mask)))
    ends = (encoder.eos, encoder.eot)
    weights = rows.weights[rows.targets != batches.IGNORED]
    expected = [0.1 if token in ends else 1.0 for _, _, token in predictions(rows, encoder.shift)]
    np.testing.assert_array_equal(weights, np.float32(expected))


def test_answers_read_back_are_the_questions_answers(encoder):
    """With all answers masked, targets of a segment are the answer, its end and the fill."""
    stage = Stage("segments", whole_share=1.0)
    rows = batches.build(encoder, stage, "train", 7)
    for i in range(stage.batch):
        for k in range(1, stage.questions + 1):
            inside = rows.segment[i] == k
            assert np.sum(inside & (rows.targets[i] != batches.IGNORED)) == 4
            tokens = [t for row, j, t in predictions(rows, encoder.shift)
                      if row == i and rows.segment[i, j] == k]
            end = tokens.index(encoder.eot)
            assert 1 <= end <= 2 and set(tokens[end + 1:]) <= {encoder.eos}
            assert (rows.kind[i, inside] >= 0).sum() == 1


def test_only_rows_that_predict_see_the_document_in_segments(encoder):
    rows = batches.build(encoder, Stage("segments", whole_share=1.0), "train", 1)
    predicting = rows.targets != batches.IGNORED
    assert rows.seeker[predicting].all()
    others = rows.seeker & ~predicting
    # With shifted logits the last mask of an answer predicts nothing but is an answer's row.
    assert (rows.ids[others] == encoder.mask).all()
    assert others.sum() == (15 if encoder.shift else 0)


def test_all_see_all_in_chat(encoder):
    rows = batches.build(encoder, Stage("chat"), "train", 1)
    real = rows.segment >= 0
    assert (rows.segment[real] == 0).all() and rows.seeker[real].all()


def test_a_document_speaks_of_as_many_people_as_its_length_holds_and_the_stage_allows(encoder):
    for most in (5, 24):
        stage = Stage("chat", length=1500, batch=1, people=None, most_people=most)
        rows = batches.build(encoder, stage, "train", 0)
        lives = encoder.text(" lives")[0]
        assert (rows.ids == lives).sum() == min(most, int(1500 * 0.45) // 38)


def test_a_batch_is_a_pure_function_of_its_seed(encoder):
    one, same, other = (batches.build(encoder, Stage("segments"), "train", s) for s in (5, 5, 6))
    np.testing.assert_array_equal(one.ids, same.ids)
    np.testing.assert_array_equal(one.targets, same.targets)
    assert one.ids.shape != other.ids.shape or (one.ids != other.ids).any()
