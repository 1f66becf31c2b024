# SPDX-License-Identifier: Apache-2.0
"""Golden cases of every policy over a whole model: what each keeps of one prompt at each budget.

As in a golden case, what an implementation in f32 may decide otherwise is marked: `decided`.
"""

import numpy as np

from maskkv_oracle import (
    bounds,
    budgets,
    forward,
    head_rules,
    layer_rules,
    named,
    policy,
    prefill,
    selection,
    shares,
    voters,
    voting,
)

ALPHA, BETA, SEED = 0.1, 0.4, 12
PROMPT, MASKS = 25, 7
BUDGETS = (1, 3, 8, 40)
CUSTOM = (
    "masks/pyramid/uniform", "masks/squeeze/preference", "masks/uniform/adakv",
    "masks-back/online/adakv", "prompt/offline/preference", "all/squeeze/adakv",
    "window/online/preference", "window/offline/adakv", "recent/offline/uniform",
    "random/pyramid/uniform", "all/pool/pool", "prompt/uniform/pool",
)  # fmt: skip
CLEAR = 1e-9


class Ranking:
    """The scores that one set of voting rows gives, and how far f32 may be from them."""

    def __init__(self, votes, limits):
        self.votes = votes
        self.scores_bound = float(limits[0].max())  # relative
        self.preference_bound = float(limits[1].max())


def _votes(traces, rows, config, candidates, noise=None):
    return [
        voting.vote(voting.mask_query_scores(t, rows, config.group, noise), candidates)
        for t in traces
    ]


def rankings(model, prompt, masks, wanted):
    """wanted: (voters, budget) pairs. -> ({pair: Ranking}, importance, its bound)"""
    c, n_p = model.config, prefill.candidates_of(model.config, prompt)
    ids = list(prompt) + [c.mask_id] * masks
    rows = {at: voters.rows(at[0], n_p, len(ids) - n_p, at[1]) for at in wanted}

    def evaluate(noise):
        traces = list(forward.run_rows(model, ids, np.arange(len(ids)), noise=noise))
        values = {"importance": np.array([voting.layer_importance(t, noise) for t in traces])}
        votes = {at: _votes(traces, r, c, n_p, noise) for at, r in rows.items()}
        for at, own in votes.items():
            values["scores", at] = np.log(np.stack([v.scores for v in own]))
            values["preference", at] = np.stack([v.preference for v in own])
        return values, votes

    exact, votes = evaluate(None)
    limits = bounds.measure(lambda noise: evaluate(noise)[0], exact)
    found = {
        at: Ranking(votes[at], (limits["scores", at], limits["preference", at])) for at in wanted
    }
    return found, exact["importance"].tolist(), float(limits["importance"].max())


def claims_clear(claims, k, low, high):
    """No rounding of the claims in doubles can make other whole pairs of them.

    Ties of equal claims, and of numbers that doubles hold, are ties in doubles too.
    """
    if all(x.denominator & (x.denominator - 1) == 0 for x in map(shares.F, claims)):
        return True
    units = range(len(k))
    return all(
        claims[t] == claims[g] or 1 - (claims[t] - k[t]) + (claims[g] - k[g]) > CLEAR
        for t in units if k[t] < high for g in units if k[g] > low and g != t
    )  # fmt: skip


def _apart(edge, bound):
    """edge: (smallest score taken, largest left) or None; bound: relative."""
    return edge is None or edge[0] - edge[1] > bound * (edge[0] + edge[1])


def _pool_edge(rows, count):
    _, low, high = head_rules.best_pairs(rows, count)
    return None if low is None or high is None else (low, high)


class Judge:
    """Which decisions of one run rounding cannot turn."""

    def __init__(self, triple, ranking, decision, budget, candidates):
        self.triple, self.ranking, self.decision = triple, ranking, decision
        self.candidates = candidates
        self.forced = voters.window_of(budget, candidates) if triple.voters == "window" else 0
        self.k = min(budget, candidates)

    def layers(self, importance, budget, bound):
        rule, layers = self.triple.layers, len(importance)
        if rule == "online":
            margin = budgets.layer_margin(importance, budget, BETA, self.candidates)
            return bool(margin is None or margin > bound)
        if rule in ("pyramid", "squeeze") and budget < self.candidates:
            claims = layer_rules.claims(rule, importance, budget)
            return claims_clear(claims, self.decision.layer_budgets, 1, self.candidates)
        if rule == "pool":
            f = min(self.forced, self.k)
            rows = [r for layer in range(layers) for r in self._outside(layer, f)]
            edge = _pool_edge(rows, len(rows) * (self.k - f))
            return bool(_apart(edge, self.ranking.scores_bound))
        return True

    def heads(self, layer):
        k, heads = self.decision.layer_budgets[layer], self.triple.heads
        if heads == "uniform" or k is None:
            return True
        if heads == "preference":
            preference = self.ranking.votes[layer].preference.tolist()
            margin = budgets.head_margin(preference, k, ALPHA, self.candidates)
            return bool(margin is None or margin > self.ranking.preference_bound)
        f = min(self.forced, k)
        rows = self._outside(layer, f)
        if not _apart(_pool_edge(rows, len(rows) * (k - f)), self.ranking.scores_bound):
            return False
        if heads == "pool":
            return True
        scores = self.ranking.votes[layer].scores[:, : self.candidates]
        claims = head_rules.adakv_claims(scores, k, f)
        own = self.decision.head_budgets[layer]
        return claims_clear(claims, own, max(1, f), self.candidates)

    def selection(self, layer, head):
        if self.ranking is None or self.triple.heads == "pool":
            return True
        kept = self.decision.kept[layer][head]
        f = min(self.forced, len(kept))
        row = self._outside(layer, f)[head]
        edge = selection.boundary_scores(row, kept[: len(kept) - f])
        return bool(_apart(edge, self.ranking.scores_bound))

    def _outside(self, layer, forced):
        return self.ranking.votes[layer].scores[:, : self.candidates - forced]


def _ranked(triple, budget):
    return None if triple.voters in voters.WITHOUT_SCORES else (triple.voters, budget)


def _run(text, budget, ranked, own, own_bound, profile, candidates):
    triple = named.parse(text)
    ranking = ranked.get(_ranked(triple, budget))
    votes = (ranking or next(iter(ranked.values()))).votes
    importance = own if triple.layers == "online" else profile
    d = policy.decide(triple, votes, importance, budget, ALPHA, BETA, candidates, SEED)
    judge = Judge(triple, ranking, d, budget, candidates)
    layers = judge.layers(importance, budget, own_bound)
    decided = []
    for layer, heads in enumerate(d.kept):
        sure = layers and judge.heads(layer)
        decided.append([bool(sure and judge.selection(layer, h)) for h in range(len(heads))])
    return {
        "policy": text,
        "budget": budget,
        "layer_budgets": None if triple.layers == "pool" else d.layer_budgets,
        "head_budgets": d.head_budgets,
        "kept": None if triple.voters == "random" else d.kept,
        "decided": decided,
    }


def generate(model, prompt, profile):
    """Every name and some triples over one prompt, at every budget."""
    names = [*named.POLICIES, *CUSTOM]
    wanted = {_ranked(named.parse(n), b) for n in names for b in BUDGETS} - {None}
    ranked, own, own_bound = rankings(model, prompt, MASKS, sorted(wanted))
    candidates = prefill.candidates_of(model.config, prompt)
    args = (ranked, own, own_bound, list(profile), candidates)
    return {
        "prompt_ids": prompt,
        "masks": MASKS,
        "candidates": candidates,
        "alpha": ALPHA,
        "beta": BETA,
        "seed": SEED,
        "profile": list(profile),
        "bounds": {
            "scores": max(r.scores_bound for r in ranked.values()),
            "preference": max(r.preference_bound for r in ranked.values()),
            "importance": own_bound,
        },
        "runs": [_run(n, b, *args) for n in names for b in BUDGETS],
    }
