# SPDX-License-Identifier: Apache-2.0
"""Prefill: one forward over prompt + masks; the mask queries vote; what is kept becomes the cache.

Prefill commits nothing. Offline, layer budgets come from a measured profile; online, from this
prompt's own importance. (That online needs all layers alive at once is an engine's worry, not an
oracle's.)
"""

import dataclasses

import numpy as np

from maskkv_oracle import forward, named, policy, voters, voting


@dataclasses.dataclass(frozen=True)
class Eviction:
    budget: int  # B
    alpha: float = 0.1
    beta: float = 0.4
    profile: tuple | None = None  # importance of every layer; None: this prompt's own
    policy: named.Policy | None = None  # None: MaskKV, offline with a profile, else online
    seed: int = 0  # of voters `random`

    @property
    def triple(self):
        return self.policy or named.parse("maskkv" if self.profile else "maskkv-online")


@dataclasses.dataclass
class Prefill:
    hidden: list  # (computed rows, hidden) after every layer: prompt + masks, without a document's
    logits: np.ndarray  # (masks, vocab_rows): the uncached step 1's predictions of the masks
    importance: list  # (layers): equation 8 on this prompt
    votes: list  # (layers): voting.Vote
    layer_budgets: list  # (layers): k_l
    head_budgets: list  # (layers)(kv_heads): k_lh
    kept: list  # (layers)(kv_heads): ascending candidates, numbered from 0
    cache: list  # (layers): forward.Pairs of the kept positions
    prompt_tokens: int
    candidates: int  # n_p: prompt tokens whose pairs may be kept
    positions: np.ndarray  # (rows): of the forward's rows, the candidates' first
    routers: list | None = None  # (layers): (rows, experts) logits of the router

    @property
    def kept_mass(self):
        """Kept prompt score / all prompt score, over layers and heads; 1 without a prompt."""
        kept = sum(
            vote.scores[h][positions].sum()
            for vote, heads in zip(self.votes, self.kept)
            for h, positions in enumerate(heads)
        )
        total = sum(vote.prompt_mass.sum() for vote in self.votes)
        return float(kept / total) if total else 1.0

    @property
    def kept_positions(self):
        """(layers)(kv_heads): ascending positions of the kept candidates."""
        return [[[int(self.positions[j]) for j in head] for head in heads] for heads in self.kept]

    def cache_of_first(self, tokens):
        """The cache without pairs at positions >= tokens: what it knows of a document."""
        count = [[sum(p < tokens for p in head) for head in heads] for heads in self.kept_positions]
        return [
            forward.Pairs([k[:n] for k, n in zip(pairs.k, c)], [v[:n] for v, n in zip(pairs.v, c)])
            for pairs, c in zip(self.cache, count)
        ]


def candidates_of(config, prompt):
    """n_p: how many of the prompt's tokens are candidates."""
    if len(prompt) < config.shift:
        raise ValueError("prompt: found no token, expected one where logits are shifted")
    return len(prompt) - config.shift


def voting_response_rows(config, prompt, response, suffix=()):
    """Rows, of a forward, that predict an undecided position or show one.

    They are the masked positions and, where logits are shifted, the row before each of them, whether
    that is a decided token or the last prompt token.
    """
    first = len(prompt) + len(suffix)
    masked = [first + i for i, token in enumerate(response) if token == config.mask_id]
    undecided = sorted({*masked, *(row - config.shift for row in masked)})
    if not undecided:
        raise ValueError("response: found no mask, expected one")
    return np.array(undecided)


def _over(trace, past):
    """The trace with the K and V of `past`, which every head has all of, before its own rows'."""
    return dataclasses.replace(
        trace,
        k=np.stack([np.concatenate(pair) for pair in zip(past.k, trace.k)]),
        v=np.stack([np.concatenate(pair) for pair in zip(past.v, trace.v)]),
    )


def run(model, prompt, masks, eviction=None, noise=None, follow=None, response=None, suffix=(),
        document=None):
    """prompt: token ids; masks >= 1, the answer's length. eviction None keeps every pair.

    In families with shifted logits the last prompt token is a response row, as the masks are: each
    step computes it again, it votes, and its pair is no candidate.

    response: token ids of a response under way or with given tokens, mask ids where nothing is
    decided (maskkv_oracle.refresh, filling in); None: all masks. Decided tokens are rows that do not
    vote.

    suffix: the rest of the prompt, after the response: candidates as the tokens before it are.
    Rows are the candidates by position, then what every step computes again.

    document: None, or each layer's Pairs of the prompt's first tokens, all of them in every head,
    computed earlier: those tokens are then not computed and do not vote, their pairs are candidates.
    Importance is measured over the rows that are computed.

    follow: another Prefill whose kept positions are taken over instead of this one's own (to ask
    what rounding does to values when the decisions stand).
    """
    c, n_p = model.config, candidates_of(model.config, prompt)
    response = [c.mask_id] * masks if response is None else list(response)
    after = len(prompt) + len(response)
    ids = [*prompt[:n_p], *suffix, *prompt[n_p:], *response]
    positions = np.concatenate(
        [np.arange(n_p), np.arange(after, after + len(suffix)), np.arange(n_p, after)]
    )
    n_p += len(suffix)
    triple = eviction.triple if eviction else named.parse("full")
    electorate = np.concatenate([np.arange(n_p), voting_response_rows(c, prompt, response, suffix)])
    some = len(electorate) - n_p
    voting_rows = voters.rows(triple.voters, n_p, some, eviction.budget if eviction else 1)
    if triple.voters in voters.WITHOUT_SCORES:  # what is kept does not depend on the scores
        voting_rows = voters.rows("masks", n_p, some, 1)
    voting_rows = electorate[voting_rows]
    start = len(document[0].k[0]) if document else 0
    if min(voting_rows, default=start) < start:
        raise ValueError("voters: found rows of the document, expected rows that are computed")
    traces, votes, importance = [], [], []
    for layer, trace in enumerate(
        forward.run_rows(model, ids[start:], positions[start:], document, noise)
    ):
        traces.append(_over(trace, document[layer]) if document else trace)
        scores = voting.mask_query_scores(traces[-1], voting_rows - start, c.group, noise)
        votes.append(voting.vote(scores, n_p))
        importance.append(voting.layer_importance(trace, noise))
    logits = forward.logits(model, traces[-1].out[n_p - start : n_p - start + masks], noise)

    if follow:
        k_layer, k_head, kept = follow.layer_budgets, follow.head_budgets, follow.kept
    else:
        e = eviction or Eviction(1)
        own = triple.layers == "online" or e.profile is None
        decision = policy.decide(
            triple, votes, importance if own else list(e.profile), e.budget, e.alpha, e.beta, n_p,
            e.seed,
        )  # fmt: skip
        k_layer, k_head, kept = decision.layer_budgets, decision.head_budgets, decision.kept
    cache = [
        forward.Pairs(
            [trace.k[g][np.array(heads[g], dtype=int)] for g in range(c.kv_heads)],
            [trace.v[g][np.array(heads[g], dtype=int)] for g in range(c.kv_heads)],
        )
        for trace, heads in zip(traces, kept)
    ]
    hidden = [trace.out for trace in traces]
    routers = [trace.router for trace in traces] if c.experts else None
    return Prefill(
        hidden, logits, importance, votes, k_layer, k_head, kept, cache, len(prompt) + len(suffix),
        n_p, positions, routers,
    )  # fmt: skip
