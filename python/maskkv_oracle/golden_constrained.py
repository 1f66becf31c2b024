# SPDX-License-Identifier: Apache-2.0
"""Golden decodings under token automata: tests/data/golden/constrained (keys: README.md there)."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from maskkv_oracle import (
    bounds,
    checkpoint,
    constrained,
    decode,
    golden_cases,
    golden_run,
    random_checkpoint,
)

RUNS = 6  # of the bounds' measurement
PROMPT = 16


def twins(ids, words):
    """Words of one id again and again: whatever one mask becomes decides the others."""
    states, arcs = 1, []
    for index in range(ids):
        arcs += [(0 if i == 0 else states + i - 1, index, states + i) for i in range(words)]
        states += words
    accepting = tuple(1 + index * words + words - 1 for index in range(ids))
    return constrained.Automaton(
        states, 0, accepting, tuple(((3 + 5 * i, 3 + 5 * i),) for i in range(ids)), tuple(arcs)
    )


def balanced(period):
    """Any number of low and high ids, the number of high ones a multiple of `period`."""
    arcs = [(s, 0, s) for s in range(period)] + [(s, 1, (s + 1) % period) for s in range(period)]
    return constrained.Automaton(period, 0, (0,), (((0, 9), (12, 20)), ((30, 45),)), tuple(arcs))


def ambiguous():
    """Not deterministic: a low id, then the same set to two states that go on differently."""
    sets = (((0, 40),), ((20, 50),), ((7, 7), (51, 55)))
    arcs = ((0, 0, 1), (0, 0, 2), (1, 1, 1), (1, 2, 3), (2, 2, 2), (2, 1, 3), (3, 0, 3))
    return constrained.Automaton(5, 0, (3,), sets, arcs)


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    automaton: constrained.Automaton
    sampling: decode.Sampling


def _rule(name, **numbers):
    return decode.Rule(name, **numbers)


CASES = {
    # One step chooses all of a word whose masks disagree: steps beyond the schedule.
    "mha-twins-low-confidence": Case("mha", twins(6, 4), decode.Sampling(8, 8, 1, 1.5, 2)),
    "mha-twins-blocks": Case("mha", twins(6, 5), decode.Sampling(8, 4, 4, 1.0, 4)),
    "gqa-twins-threshold": Case(
        "gqa", twins(5, 6), decode.Sampling(8, 8, 8, rule=_rule("threshold", threshold=0.15))
    ),
    "gqa-twins-sampled": Case(
        "gqa", twins(5, 6), decode.Sampling(
            8, 4, 8, 0.8, 11, rule=_rule("threshold", threshold=0.2))
    ),  # fmt: skip
    "mha-balanced-factor": Case(
        "mha", balanced(3), decode.Sampling(9, 9, 9, rule=_rule("factor", factor=1.5))
    ),
    "mha-balanced-no-eos": Case("mha", balanced(4), decode.Sampling(8, 4, 4, suppress_eos=True)),
    "gqa-balanced-random": Case(
        "gqa", balanced(2), decode.Sampling(10, 5, 6, 1.0, 3, rule=_rule("random"))
    ),
    "gqa-ambiguous-origin": Case(
        "gqa", ambiguous(), decode.Sampling(8, 8, 3, 0.5, 21, rule=_rule("origin"))
    ),
    "mha-ambiguous-hierarchical": Case(
        "mha", ambiguous(), decode.Sampling(
            8, 8, 8, rule=_rule("hierarchical", threshold=0.3, low_threshold=0.05))
    ),  # fmt: skip
    "dream-ambiguous-entropy": Case(
        "dream", ambiguous(), decode.Sampling(8, 8, 3, 0.6, 2, rule=_rule("entropy"))
    ),
    "dream-twins-margin": Case(
        "dream", twins(4, 5), decode.Sampling(8, 8, 2, rule=_rule("topk_margin"))
    ),
}  # fmt: skip


def _values(model, prompt, params, automaton, answer, noise=None):
    """Logits, confidences and scores along the exact decisions: {name: array}."""
    c = model.config
    ends = tuple(i for i in params.stop_ids if i != c.eos_id or not params.suppress_eos)
    constraint = constrained.Constraint(automaton, ends, c.mask_id)
    canvas, values = [c.mask_id] * params.gen_length, {}
    for s in answer.steps:
        raw = decode.answer_logits(model, prompt, canvas, None, s.positions, noise)
        confidence, score = [], []
        for row, token, position in zip(raw, s.tokens, s.positions):
            ids = constraint.forbidden(canvas, int(position), len(row))
            token, at = np.array([token]), [len(prompt) + int(position)]
            confidence += list(decode.confidence_of(row[None], token, ids, noise))
            score += list(decode.scores_of(row[None], token, ids, params, at, s.step))
        values[f"logits {s.step}"] = raw
        values[f"confidence {s.step}"] = np.array(confidence)
        values[f"score {s.step}"] = np.array(score)
        for position, token, _ in s.committed:
            canvas[position] = token
    return values


def _case(name, case, model):
    prompt = golden_cases.prompt_of(golden_cases.Case(case.checkpoint, PROMPT, None, "none"))
    params = dataclasses.replace(case.sampling, stop_ids=(model.config.eos_id,))
    answer = constrained.run(model, prompt, params, case.automaton)
    limits = bounds.measure(
        lambda noise: _values(model, prompt, params, case.automaton, answer, noise),
        _values(model, prompt, params, case.automaton, answer), runs=RUNS)  # fmt: skip

    def of(number):
        return {n.split()[0]: v for n, v in limits.items() if n.split()[1] == str(number)}

    return {
        "format": 1,
        "name": name,
        "model": f"tests/data/golden/checkpoints/{case.checkpoint}",
        "prompt_ids": prompt,
        "params": params.fields(),
        "automaton": case.automaton.fields(),
        "steps": [golden_run.step_json(s, params, of(s.step), None, len(prompt))
                  for s in answer.steps],
        "canvas": [int(t) for t in answer.canvas],
        "answer": [int(t) for t in answer.tokens],
    }  # fmt: skip


def generate():
    """{name of a case: its fields}"""
    models = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in {case.checkpoint for case in CASES.values()}:
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)
    return {name: _case(name, case, models[case.checkpoint]) for name, case in CASES.items()}
