# SPDX-License-Identifier: Apache-2.0
"""Voting, budgets and selection of the oracle: examples by hand, and what must always hold."""

import numpy as np
import pytest

from maskkv_oracle import budgets, forward, selection, voting

SEED = 2024


def test_layer_budgets_by_hand():
    # B 10, L 4: k_p 40; k_base floor(0.4 * 10) = 4; k_imp 40 - 16 = 24.
    # I_B = 0.5 + 0.25, I_M = 0.125 + 0.125: share 0.75; k_grpB 18, k_grpM 6.
    # k_l = 4 + 18 / 2 = 13, 4 + 6 / 2 = 7.
    assert budgets.layer_budgets([0.5, 0.125, 0.125, 0.25], 10, 0.4, 100) == [13, 7, 7, 13]


def test_layer_remainder_goes_by_importance_over_all_layers():
    # B 5, L 4: k_base 2, k_imp 12, share 0.8 / 1.0: 9.6 and 2.4: floors 2 + 4, 2 + 1; 18 of 20.
    assert budgets.layer_budgets([0.5, 0.15, 0.05, 0.3], 5, 0.4, 100) == [7, 3, 3, 7]
    # The middle may be more important than a boundary layer: 0.6 : 0.4 is 7.2 and 4.8; 5, 4; 18.
    assert budgets.layer_budgets([0.5, 0.3, 0.1, 0.1], 5, 0.4, 100) == [6, 5, 4, 5]
    # Ties go to the lower index.
    assert budgets.layer_budgets([0.4, 0.1, 0.1, 0.4], 3, 0.4, 100) == [5, 1, 1, 5]
    assert budgets.layer_budgets([0.1, 0.4, 0.4, 0.1], 3, 0.4, 100) == [1, 5, 5, 1]


def test_layer_caps_pass_the_overflow_on_in_rounds():
    # By hand as above: 13, 7, 7, 13; capped at 11, four over: only the middle layers have room.
    assert budgets.layer_budgets([0.5, 0.125, 0.125, 0.25], 10, 0.4, 11) == [11, 9, 9, 11]


def test_one_and_two_layers_and_no_importance_get_the_budget():
    assert budgets.layer_budgets([0.3], 9, 0.4, 100) == [9]
    assert budgets.layer_budgets([0.3, 0.9], 9, 0.4, 100) == [9, 9]
    assert budgets.layer_budgets([0.0] * 5, 9, 0.4, 100) == [9] * 5


@pytest.mark.parametrize("budget", [0, -1, 1.5])
def test_a_budget_below_one_or_not_whole_is_refused(budget):
    with pytest.raises(ValueError, match="budget"):
        budgets.layer_budgets([0.3, 0.3, 0.3], budget, 0.4, 100)


def test_head_budgets_by_hand():
    # k_l 10, alpha 0.1, two heads: x = 1 + 18 * (0.75, 0.25) = 14.5, 5.5: the tie's pair to head 0.
    assert budgets.head_claims([0.6, 0.2], 10, 0.1) == pytest.approx([14.5, 5.5])
    assert budgets.head_budgets([0.75, 0.25], 10, 0.1, 100) == [15, 5]
    # The largest fraction gets the remainder: 12 * (0.55, 0.30, 0.15) = 6.6, 3.6, 1.8.
    assert budgets.head_budgets([0.55, 0.3, 0.15], 4, 0.0, 100) == [7, 3, 2]


def test_every_head_keeps_a_pair_and_the_smallest_claim_pays():
    # x = 4, 0, 0, 0 with k_l 1: all four pairs go one to each.
    assert budgets.head_budgets([1, 0, 0, 0], 1, 0.0, 10) == [1, 1, 1, 1]
    # x = 2.4, 3.4, 0.2: floors 2, 3 and the lifted 1 are six already.
    assert budgets.head_budgets([0.4, 17 / 30, 1 / 30], 2, 0.0, 10) == [2, 3, 1]


def test_overflow_past_the_prompt_stays_in_the_layer():
    # x = 20, 0, 0 -> 8 at most; the other 7 pairs alternate, lower index first, claims being equal.
    assert budgets.head_budgets([1, 0, 0], 5, 0.0, 8) == [8, 4, 3]


def test_totals_caps_and_floors_hold_for_random_inputs():
    rng = np.random.default_rng(SEED)
    for _ in range(1500):
        layers, heads = int(rng.integers(1, 20)), int(rng.integers(1, 12))
        prompt, budget = int(rng.integers(1, 90)), int(rng.integers(1, 120))
        importance = (rng.gamma(0.3, 1, layers) * (rng.random(layers) < 0.8)).tolist()
        alpha, beta = rng.random(2)
        k = budgets.layer_budgets(importance, budget, beta, prompt)
        assert sum(k) == min(budget, prompt) * layers
        assert all(1 <= v <= prompt for v in k)
        preference = (rng.beta(0.3, 0.5, heads) * (rng.random(heads) < 0.8)).tolist()
        per_head = budgets.head_budgets(preference, k[0], alpha, prompt)
        assert sum(per_head) == heads * k[0]
        assert all(1 <= v <= prompt for v in per_head)


def test_head_budgets_are_the_nearest_integers_to_the_claims():
    rng = np.random.default_rng(SEED + 1)
    for _ in range(400):
        heads, prompt = int(rng.integers(2, 6)), int(rng.integers(2, 30))
        k_l, alpha = int(rng.integers(1, prompt + 1)), float(rng.random())
        preference = rng.beta(0.3, 0.5, heads).tolist()
        k = budgets.head_budgets(preference, k_l, alpha, prompt)
        x = budgets.head_claims(preference, k_l, alpha)
        distance = sum((a - b) ** 2 for a, b in zip(k, x))
        for giver in range(heads):
            for taker in range(heads):
                if giver != taker and k[giver] > 1 and k[taker] < prompt:
                    other = list(k)
                    other[giver], other[taker] = k[giver] - 1, k[taker] + 1
                    assert sum((a - b) ** 2 for a, b in zip(other, x)) >= distance - 1e-9


def test_no_change_below_the_margin_changes_a_budget():
    rng = np.random.default_rng(SEED + 2)
    moved = 0
    for _ in range(300):
        n, prompt = int(rng.integers(2, 9)), int(rng.integers(2, 60))
        budget = int(rng.integers(1, prompt + 1))
        value = rng.gamma(0.5, 0.3, n).tolist()
        for margin_of, budgets_of in (
            (budgets.layer_margin, budgets.layer_budgets),
            (budgets.head_margin, budgets.head_budgets),
        ):
            margin = margin_of(value, budget, 0.3, prompt)
            margin = 0.01 if margin is None else 0.9 * margin
            for _ in range(8):
                near = [max(0.0, v + margin * s) for v, s in zip(value, rng.choice([-1, 1], n))]
                moved += near != value
                exact = budgets_of(value, budget, 0.3, prompt)
                assert budgets_of(near, budget, 0.3, prompt) == exact
    assert moved > 3000


def test_top_k_takes_the_lower_position_of_equals_and_ascends():
    assert selection.top_k([2.0, 1.0, 2.0, 3.0, 2.0], 3) == [0, 2, 3]
    assert selection.top_k([], 0) == []
    with pytest.raises(ValueError, match="NaN"):
        selection.top_k([1.0, float("nan")], 1)


def test_scores_sum_the_attention_of_mask_queries_over_the_group():
    rng = np.random.default_rng(SEED + 3)
    q, k = rng.normal(size=(4, 7, 6)), rng.normal(size=(2, 7, 6))
    trace = forward.LayerTrace(q, k, None, None, None, None)
    scores = voting.mask_query_scores(trace, [5, 6], 2)
    by_hand = np.zeros((2, 7))
    for head in range(4):
        for row in (5, 6):
            weights = np.exp(q[head, row] @ k[head // 2].T / np.sqrt(6))
            by_hand[head // 2] += weights / weights.sum()
    assert scores == pytest.approx(by_hand, rel=1e-12)
    assert scores.sum(axis=1) == pytest.approx([4, 4])  # two masks, two query heads a group
    vote = voting.vote(scores, 5)
    assert vote.preference == pytest.approx(by_hand[:, :5].sum(axis=1) / 4)


def test_importance_is_zero_when_attention_changes_nothing_and_two_when_it_turns_round():
    x = np.arange(1.0, 13.0).reshape(3, 4)

    def importance(before, after):
        return voting.layer_importance(forward.LayerTrace(None, None, None, before, after, None))

    assert importance(x, 3 * x) == pytest.approx(0, abs=1e-15)
    assert importance(x, -x) == pytest.approx(2)
    assert importance(x, np.zeros_like(x)) == 1
    assert importance(0 * x, 0 * x) == 0
