# SPDX-License-Identifier: Apache-2.0
"""Turns documents and questions into training rows.

Two layouts. "segments": one document, then several [question, assistant header, answer] segments
at the positions they would have if they stood alone; the document sees itself, a segment sees
itself, and its masks (only they; with shifted logits the row before them too, which predicts the
first) see the document too. "chat": the layout of inference, one
question, everything sees everything.
"""

import random
from dataclasses import dataclass

import numpy as np

from maskkv_tiny import world

KINDS = ("single", "two_hop")
IGNORED = -1


@dataclass
class Rows:
    ids: np.ndarray  # (B, n) int64
    positions: np.ndarray  # (B, n) int64
    segment: np.ndarray  # (B, n) int64: 0 document, k the k-th question, -1 padding
    seeker: np.ndarray  # (B, n) bool: sees the document (all of it, in layout "chat")
    targets: np.ndarray  # (B, n) int64: what the row predicts, IGNORED where nothing
    weights: np.ndarray  # (B, n) float32: of the row's prediction
    kind: np.ndarray  # (B, n) int64: where the first token of a wholly masked answer is predicted


class Encoder:
    """Text to ids of a family's tokenizer, in the pieces that the layouts need."""

    def __init__(self, family, tokenizer):
        self._tokenizer = tokenizer
        self.shift = family.shape.shift
        special = (family.eos, family.end_of_turn, family.mask)
        self.eos, self.eot, self.mask = map(tokenizer.token_to_id, special)
        head, tail = family.render([("user", "?")]).split("?")
        self._head, self._tail = self.text(head), self.text("?" + tail)[1:]

    def text(self, text):
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def document(self, document):
        return self._head + self.text(document + "\n\n")

    def question(self, question):
        return self.text(question) + self._tail

    def answer(self, answer, length):
        """The answer, the end of the turn, and the fill: `length` tokens."""
        ids = self.text(" " + answer) + [self.eot]
        return ids + [self.eos] * (length - len(ids))


def _mask_answer(rng, answer, whole_share):
    """True at the answer tokens to be masked: all of them, or a random part but at least one."""
    if rng.random() < whole_share:
        return [True] * len(answer)
    rate = rng.random()
    masked = [rng.random() < rate for _ in answer]
    masked[rng.randrange(len(answer))] = True
    return masked


def build(encoder, stage, split, seed):
    """The batch number `seed` of a stage; a pure function of its arguments."""
    rng = random.Random(f"{split}/batch/{seed}")
    chat = stage.layout == "chat"
    asked = 1 if chat else stage.questions
    length = stage.length if not stage.shortest else rng.randint(stage.shortest, stage.length)
    answer_length = rng.choice(stage.answer_lengths)
    people = stage.people or world.people_for(length, stage.most_people)
    rows = []
    for _ in range(stage.batch):
        document = world.make_document(rng, split, length, asked, stage.two_hop_share, people,
                                       lookalikes=None)
        rows.append(_row(encoder, stage, rng, document, answer_length, chat))
    n = max(len(row[0]) for row in rows)
    fills = (encoder.eos, 0, -1, False, IGNORED, 0.0, -1)
    types = (np.int64, np.int64, np.int64, bool, np.int64, np.float32, np.int64)
    columns = []
    for column, (fill, dtype) in enumerate(zip(fills, types)):
        padded = np.full((len(rows), n), fill, dtype=dtype)
        for i, row in enumerate(rows):
            padded[i, : len(row[column])] = row[column]
        columns.append(padded)
    return Rows(*columns)


def _row(encoder, stage, rng, document, answer_length, chat):
    ids = encoder.document(document.text)
    start = len(ids)
    positions = list(range(start))
    segment, seeker = [0] * start, [chat] * start
    targets, weights, kinds = [IGNORED] * start, [0.0] * start, [-1] * start
    for index, question in enumerate(document.questions):
        before = encoder.question(question.text)
        answer = encoder.answer(question.answer, answer_length)
        masked = _mask_answer(rng, answer, stage.whole_share)
        ids += before + [encoder.mask if m else a for a, m in zip(answer, masked)]
        count = len(before) + answer_length
        positions += range(start, start + count)
        segment += [0 if chat else index + 1] * count
        last = len(before) - encoder.shift
        seeker += [chat] * last + [True] * (encoder.shift + answer_length)
        targets += [IGNORED] * len(before) + [a if m else IGNORED for a, m in zip(answer, masked)]
        weights += [0.0] * len(before) + [0.1 if a in (encoder.eos, encoder.eot) else 1.0
                                          for a in answer]
        first = KINDS.index(question.kind) if all(masked) else -1
        kinds += [-1] * len(before) + [first] + [-1] * (answer_length - 1)
    for column, fill in ((targets, IGNORED), (weights, 0.0), (kinds, -1)):
        column += [fill] * encoder.shift
        del column[: encoder.shift]
    return ids, positions, segment, seeker, targets, weights, kinds
