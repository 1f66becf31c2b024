# SPDX-License-Identifier: Apache-2.0
"""The oracle's decoding under an automaton: enumeration of all words, and what golden files hold."""

import itertools
import json
import pathlib

import numpy as np
import pytest

from maskkv_oracle import (
    checkpoint,
    constrained,
    decode,
    golden_cases,
    golden_constrained,
    random_checkpoint,
    rules,
)

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "data/golden/constrained"
MASK = 9


def accepts(automaton, end_ids, word):
    """By all paths, one after the other."""
    def walk(state, rest):
        if not rest or rest[0] in end_ids:
            return state in automaton.accepting and all(i in end_ids for i in rest)
        return any(walk(target, rest[1:]) for source, index, target in automaton.arcs
                   if source == state and rest[0] in automaton.ids(index))

    return walk(automaton.start, tuple(word))


def random_automaton(rng, ids):
    states = int(rng.integers(1, 5))
    sets = tuple(tuple((int(i), int(i)) for i in sorted({*rng.integers(0, ids, 2)}))
                 for _ in range(3))
    arcs = tuple((int(rng.integers(states)), int(rng.integers(3)), int(rng.integers(states)))
                 for _ in range(int(rng.integers(1, 3 * states + 1))))
    return constrained.Automaton(states, 0, (int(rng.integers(states)),), sets, arcs)


def test_what_is_possible_and_allowed_equals_the_enumeration_of_all_words():
    rng = np.random.default_rng(5)
    seen = set()
    for _ in range(150):
        automaton = random_automaton(rng, 3)
        end_ids = ((3,), (3, 4), ())[int(rng.integers(3))]
        constraint = constrained.Constraint(automaton, end_ids, MASK)
        canvas = [int(i) if i < 5 else MASK for i in rng.integers(0, 12, int(rng.integers(1, 5)))]
        words = [word for word in itertools.product(range(5), repeat=len(canvas))
                 if all(c in (MASK, w) for c, w in zip(canvas, word))
                 and accepts(automaton, end_ids, word)]
        assert constraint.possible(canvas) == bool(words)
        seen.add(bool(words))
        for position in (i for i, token in enumerate(canvas) if token == MASK):
            assert constraint.allowed(canvas, position) == sorted({w[position] for w in words})
    assert seen == {True, False}


def test_what_fits_is_taken_by_descending_score():
    constraint = constrained.Constraint(golden_constrained.twins(3, 2), (1,), MASK)
    canvas = [MASK] * 3
    assert constraint.allowed(canvas, 0) == [3, 8, 13] and constraint.allowed(canvas, 2) == [1]
    predictions = [(0, 3, 0.2), (1, 8, 0.3), (2, 1, 0.1)]
    assert constraint.fitting(canvas, predictions, [0, 1, 2]) == [1, 2]
    assert constraint.fitting(canvas, predictions, [0, 2]) == [0, 2]
    tied = [(0, 3, 0.2), (1, 8, 0.2), (2, 1, 0.2)]
    assert constraint.fitting(canvas, tied, [0, 1, 2]) == [0, 2]


@pytest.mark.parametrize("rule", rules.RULES)
def test_every_answer_is_accepted_whatever_the_rule(rule, tmp_path):
    random_checkpoint.write(golden_cases.CHECKPOINTS["mqa"], tmp_path)
    model = checkpoint.load(tmp_path)
    eos = model.config.eos_id
    for seed, automaton in enumerate((golden_constrained.twins(5, 3), golden_constrained.balanced(2))):
        params = decode.Sampling(6, 3, 2, 1.0, seed, stop_ids=(eos,), ignore_eos=True,
                                 rule=decode.Rule(rule, threshold=0.1, low_threshold=0.05))
        answer = constrained.run(model, [1, 2, 3], params, automaton)
        assert accepts(automaton, {eos}, answer.canvas)
        numbers = [step.step for step in answer.steps]
        assert numbers == sorted(set(numbers))
        decided = [position for step in answer.steps for position, _, _ in step.committed]
        assert sorted(decided) == list(range(6))


def test_an_automaton_that_nothing_satisfies_is_refused(tmp_path):
    random_checkpoint.write(golden_cases.CHECKPOINTS["mqa"], tmp_path)
    with pytest.raises(ValueError, match="no answer fits"):
        constrained.run(checkpoint.load(tmp_path), [1], decode.Sampling(4, 4, 4),
                        golden_constrained.twins(2, 5))


def test_golden_cases_hold_conflicts_steps_beyond_a_schedule_and_clear_decisions():
    conflicts = late = 0
    for path in sorted(GOLDEN.glob("*.json")):
        case = json.loads(path.read_text())
        assert all(step["decided"] for step in case["steps"]), path
        params = golden_constrained.CASES[path.stem].sampling
        assert accepts(golden_constrained.CASES[path.stem].automaton,
                       set(case["params"]["stop_ids"]), case["answer"])
        if params.rule.scheduled:
            late += sum(step["step"] >= params.steps for step in case["steps"])
        elif params.rule.name == "threshold":
            for step in case["steps"]:
                over = sum(c >= params.rule.threshold for c in step["confidence"])
                conflicts += max(over, 1) > len(step["committed"])
    assert conflicts >= 1 and late >= 2
