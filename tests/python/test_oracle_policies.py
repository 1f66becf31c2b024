# SPDX-License-Identifier: Apache-2.0
"""Policies of the oracle: voters, layer rules, head rules, names; by hand and by brute force."""

import fractions
import itertools

import numpy as np
import pytest

from maskkv_oracle import (
    checkpoint,
    golden_cases,
    head_rules,
    layer_rules,
    named,
    policy,
    prefill,
    random_checkpoint,
    voters,
    voting,
)

SEED = 77
F = fractions.Fraction


def votes_of(scores, candidates):
    return [voting.vote(np.asarray(layer, dtype=float), candidates) for layer in scores]


def random_votes(rng, layers, heads, candidates, response):
    raw = rng.gamma(0.4, 1.0, (layers, heads, candidates + response)) + 1e-3
    return votes_of(raw, candidates)


@pytest.mark.parametrize(
    "name, response, expected",
    [
        ("masks", 4, [5, 6, 7, 8]),
        ("masks-front", 8, [5, 6]),
        ("masks-second", 8, [7, 8]),
        ("masks-third", 7, [8, 9]),
        ("masks-back", 7, [10, 11]),
        ("masks-front", 2, [5]),
        ("masks-second", 2, [5]),
        ("masks-third", 2, [6]),
        ("masks-back", 2, [6]),
        ("masks-back", 1, [5]),
        ("prompt", 3, [0, 1, 2, 3, 4]),
        ("all", 2, [0, 1, 2, 3, 4, 5, 6]),
        ("recent", 2, []),
    ],
)
def test_rows_that_vote(name, response, expected):
    assert voters.rows(name, 5, response, 9).tolist() == expected


@pytest.mark.parametrize(
    "budget, candidates, w",
    [(1, 9, 1), (3, 9, 1), (4, 9, 2), (64, 90, 32), (500, 90, 32), (64, 7, 7), (8, 0, 0)],
)
def test_the_window_is_half_the_budget_up_to_32(budget, candidates, w):
    assert voters.window_of(budget, candidates) == w
    assert voters.rows("window", candidates, 3, budget).tolist() == list(
        range(candidates - w, candidates)
    )


def test_the_quarters_are_all_response_rows_once_where_there_are_four():
    for response in range(4, 40):
        parts = [voters.rows(q, 3, response, 1).tolist() for q in voters.QUARTERS]
        assert sum(parts, []) == list(range(3, 3 + response))


def test_streaming_keeps_sinks_and_the_most_recent():
    assert voters.most_recent(1, 9) == [8]
    assert voters.most_recent(5, 9) == [0, 1, 6, 7, 8]
    assert voters.most_recent(9, 20) == [0, 1, 2, 3, 15, 16, 17, 18, 19]
    assert voters.most_recent(9, 9) == list(range(9))


def test_pyramid_by_hand():
    # B 20: from 39 down to 1 in steps of 9.5.
    assert layer_rules.pyramid_claims(5, 20) == [39, F(59, 2), 20, F(21, 2), 1]
    assert layer_rules.layer_budgets("pyramid", [0] * 5, 20, 0.4, 100) == [39, 30, 20, 10, 1]
    assert layer_rules.layer_budgets("pyramid", [0] * 5, 20, 0.4, 30) == [30, 30, 23, 13, 4]
    assert layer_rules.layer_budgets("pyramid", [0], 20, 0.4, 100) == [20]
    assert layer_rules.layer_budgets("pyramid", [0] * 3, 1, 0.4, 9) == [1, 1, 1]
    assert layer_rules.layer_budgets("pyramid", [0] * 3, 7, 0.4, 0) == [0, 0, 0]


def test_squeeze_by_hand():
    # Similarities 0.5, 0.75, 1, 1: the last two have 4 each, the others 10 + 6 * 2 / 2.
    assert layer_rules.squeeze_claims([0.5, 0.25, 0, 0], 10) == [16, 16, 4, 4]
    assert layer_rules.layer_budgets("squeeze", [0.5, 0.25, 0, 0], 10, 0.4, 100) == [16, 16, 4, 4]
    assert layer_rules.layer_budgets("squeeze", [0.3] * 4, 10, 0.4, 100) == [10] * 4
    assert layer_rules.layer_budgets("squeeze", [0.3], 10, 0.4, 100) == [10]
    # Two values: two clusters.
    assert layer_rules.layer_budgets("squeeze", [0.5, 0, 0.5], 10, 0.4, 100) == [13, 4, 13]
    # 0, 1, 2, 3 fall into three runs of equal cost in three ways: the earliest borders.
    assert layer_rules.most_similar([0.0, 1.0, 2.0, 3.0]) == [2, 3]


def test_the_clusters_are_the_best_of_every_assignment():
    rng = np.random.default_rng(SEED)
    for _ in range(40):
        values = (rng.integers(0, 12, int(rng.integers(1, 7))) / 8).tolist()
        clusters = min(3, len(set(values)))

        def cost(labels):
            total = F(0)
            for label in set(labels):
                run = [F(v) for v, own in zip(values, labels) if own == label]
                total += sum((v - sum(run) / len(run)) ** 2 for v in run)
            return total

        every = itertools.product(range(clusters), repeat=len(values))
        assert min(layer_rules.partitions(values))[0] == min(map(cost, every))


def test_adakv_by_hand():
    scores = [[9, 8, 7, 1, 0], [6, 1, 1, 1, 0]]
    # No window, k 2: four pairs, three of head 0. Claims 0.4 + 2.4, 0.4 + 0.8.
    assert head_rules.adakv_claims(scores, 2, 0) == [F(14, 5), F(6, 5)]
    assert head_rules.head_budgets("adakv", scores, None, 2, 0.1, 0) == [3, 1]
    # A window of one: one pair each for sure, four of the pool over the first four positions.
    assert head_rules.adakv_claims(scores, 3, 1) == [1 + F(2, 5) + F(12, 5), 1 + F(2, 5) + F(4, 5)]
    assert head_rules.head_budgets("adakv", scores, None, 3, 0.1, 1) == [4, 2]
    # k no larger than the window: the window's last k.
    assert head_rules.head_budgets("adakv", scores, None, 2, 0.1, 3) == [2, 2]
    assert head_rules.keep(scores[0], 2, 3) == [3, 4]
    assert head_rules.keep(scores[0], 3, 1) == [0, 1, 4]
    # 2, 7 and 6 pairs of 15: claims 2.6, 6.6, 5.8. The last fraction wins, then the lower head.
    ties = [[1] * n + [0] * (8 - n) for n in (2, 7, 6)]
    assert head_rules.adakv_claims(ties, 5, 0) == [F(13, 5), F(33, 5), F(29, 5)]
    assert head_rules.head_budgets("adakv", ties, None, 5, 0.1, 0) == [3, 6, 6]


def test_pools_by_hand():
    two = [[[4, 1, 0], [4, 3, 3]], [[9, 0, 0], [0, 0, 3]]]
    assert head_rules.pooled(two[:1], 2, 0) == [[[0], [0]]]
    assert head_rules.pooled(two[:1], 3, 0) == [[[0], [0, 1]]]
    assert head_rules.pooled(two, 4, 0) == [[[0], [0, 1]], [[0], []]]
    assert head_rules.pooled(two, 5, 0) == [[[0], [0, 1, 2]], [[0], []]]
    assert head_rules.pooled(two, 12, 0) == [[[0, 1, 2]] * 2] * 2


@pytest.mark.parametrize("name", named.POLICIES)
def test_every_policy_keeps_exactly_the_budget(name):
    rng = np.random.default_rng(SEED + 1)
    triple = named.parse(name)
    for _ in range(25):
        layers, heads = int(rng.integers(1, 7)), int(rng.integers(1, 5))
        candidates, budget = int(rng.integers(0, 30)), int(rng.integers(1, 36))
        votes = random_votes(rng, layers, heads, candidates, 5)
        importance = np.round(rng.gamma(0.5, 0.3, layers), 2).tolist()
        d = policy.decide(triple, votes, importance, budget, 0.1, 0.4, candidates, seed=3)
        flat = [own for head in d.kept for own in head]
        if name != "full":
            assert sum(map(len, flat)) == layers * heads * min(budget, candidates)
        for own in flat:
            assert own == sorted(set(own)) and all(0 <= j < candidates for j in own)
            if triple.voters == "window" and candidates:
                w = min(voters.window_of(budget, candidates), len(own))
                assert own[len(own) - w :] == list(range(candidates - w, candidates))
        if budget >= candidates:
            assert flat == [list(range(candidates))] * len(flat)


def test_the_one_pool_is_what_a_sort_of_all_pairs_keeps():
    rng = np.random.default_rng(SEED + 2)
    for _ in range(50):
        layers, heads, candidates = (int(x) for x in rng.integers(1, 6, 3))
        scores = rng.integers(0, 4, (layers, heads, candidates + 1)).astype(float)
        scores[:, :, -1] = 1
        budget = int(rng.integers(1, 6))
        kept = policy.decide(named.parse("maskkv-pool"), votes_of(scores, candidates), None, budget,
                             0.1, 0.4, candidates).kept  # fmt: skip
        order = sorted(
            itertools.product(range(layers), range(heads), range(candidates)),
            key=lambda at: -scores[at],
        )  # a stable sort: ties stay in the order of layer, head, position
        best = set(order[: budget * layers * heads])
        found = {
            (l, h, j) for l, own in enumerate(kept) for h, js in enumerate(own) for j in js
        }
        assert found == best


def test_the_same_scores_say_the_same_under_other_names():
    # Uniform importance makes offline uniform; alpha 1 makes preference uniform.
    rng = np.random.default_rng(SEED + 3)
    votes = random_votes(rng, 4, 3, 20, 4)

    def kept(text, alpha=1.0):
        return policy.decide(named.parse(text), votes, [0.25] * 4, 6, alpha, 1.0, 20).kept

    assert kept("maskkv") == kept("mask-voting") == kept("maskkv-no-layers")
    assert kept("maskkv", 0.1) != kept("mask-voting")
    assert kept("masks/uniform/uniform") == kept("mask-voting")


@pytest.mark.parametrize(
    "text, what",
    [
        ("nobody", "policy"),
        ("masks/uniform", "policy"),
        ("mask/uniform/uniform", "voters"),
        ("masks/even/uniform", "layers"),
        ("masks/uniform/even", "heads"),
        ("recent/uniform/preference", "heads"),
        ("random/offline/adakv", "heads"),
        ("masks/pool/uniform", "heads"),
        ("window/pool/pool", "layers"),
    ],
)
def test_what_is_no_policy_is_refused(text, what):
    with pytest.raises(ValueError, match=f"{what}: found"):
        named.parse(text)


@pytest.mark.parametrize("name", ["all-voting", "snapkv", "maskkv-back", "prompt-voting"])
def test_a_prefill_hands_its_own_rows_scores_to_the_policy(name, tmp_path):
    random_checkpoint.write(golden_cases.CHECKPOINTS["gqa"], tmp_path)
    model = checkpoint.load(tmp_path)
    prompt = list(range(3, 20))
    triple = named.parse(name)
    run = prefill.run(model, prompt, 6, prefill.Eviction(4, profile=(0.5, 0.1, 0.3), policy=triple))
    rows = voters.rows(triple.voters, 17, 6, 4)
    # A row's weights over all keys sum to one, for each of the group's query heads.
    assert run.votes[0].scores.sum(axis=1) == pytest.approx([len(rows) * model.config.group] * 2)
    again = policy.decide(triple, run.votes, [0.5, 0.1, 0.3], 4, 0.1, 0.4, 17)
    assert run.kept == again.kept
    assert [len(k) for k in run.cache[1].k] == [len(k) for k in run.kept[1]]
