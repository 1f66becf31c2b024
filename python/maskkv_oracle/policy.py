# SPDX-License-Identifier: Apache-2.0
"""Which prompt pairs each KV head of each layer keeps under a policy."""

import dataclasses

from maskkv_oracle import head_rules, layer_rules, voters


@dataclasses.dataclass(frozen=True)
class Decision:
    layer_budgets: list  # (layers): pairs a head; under layers `pool` None each
    head_budgets: list  # (layers)(kv_heads)
    kept: list  # (layers)(kv_heads): ascending candidates


def decide(policy, votes, importance, budget, alpha, beta, candidates, seed=0):
    """votes: voting.Vote of each layer, by the rows that `voters.rows` names (any if none vote).

    importance: of each layer, the profile's or, under `online`, this prompt's own.
    """
    layers, heads = len(votes), len(votes[0].scores)
    if policy.voters == "full" or candidates == 0:
        everything = [list(range(candidates))] * heads
        return Decision([candidates] * layers, [[candidates] * heads] * layers,
                        [everything] * layers)  # fmt: skip
    scores = [vote.scores[:, :candidates] for vote in votes]
    forced = voters.window_of(budget, candidates) if policy.voters == "window" else 0
    if policy.layers == "pool":
        k = min(budget, candidates)
        f = min(forced, k)
        kept = head_rules.pooled(scores, layers * heads * (k - f), f)
        return Decision([None] * layers, _lengths(kept), kept)
    k_layer = layer_rules.layer_budgets(policy.layers, importance, budget, beta, candidates)
    kept = []
    for layer, (vote, k) in enumerate(zip(votes, k_layer)):
        if policy.heads == "pool":
            f = min(forced, k)
            kept += head_rules.pooled([scores[layer]], heads * (k - f), f)
        elif policy.voters == "recent":
            kept.append([voters.most_recent(k, candidates)] * heads)
        elif policy.voters == "random":
            kept.append([voters.any_random(k, candidates, seed, layer, h) for h in range(heads)])
        else:
            preference = vote.preference.tolist()
            k_head = head_rules.head_budgets(
                policy.heads, scores[layer], preference, k, alpha, forced
            )
            kept.append(
                [head_rules.keep(row, n, forced) for row, n in zip(scores[layer], k_head)]
            )
    return Decision(k_layer, _lengths(kept), kept)


def _lengths(kept):
    return [[len(own) for own in heads] for heads in kept]
