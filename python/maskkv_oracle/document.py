# SPDX-License-Identifier: Apache-2.0
"""One document and many questions.

A copy of the document is each layer's K and V of its tokens, of one forward with one question in
place. Later questions vote over it: their rows and masks alone are computed, and see the copy. Either
such a vote chooses what its own question is answered over (prefill.run with `document`), or the votes
of several questions are combined and choose what is kept of the document for whichever comes next.
"""

import numpy as np

from maskkv_oracle import forward, policy, prefill, voting

COMBINATIONS = {"sum": np.sum, "max": np.max, "min": np.min}


def copy_of(model, document, question, masks, noise=None):
    """The document's pairs, all of them, in a prefill of document + question + masks."""
    run = prefill.run(model, list(document) + list(question), masks, noise=noise)
    if len(document) > run.candidates:
        raise ValueError("question: found no token, expected one where logits are shifted")
    return run.cache_of_first(len(document))


def vote_over(model, document, copy, question, masks, eviction=None, noise=None, follow=None):
    """The prefill of a question over the copy."""
    prompt = list(document) + list(question)
    return prefill.run(model, prompt, masks, eviction, noise, follow, document=copy)


def combine(prefills, tokens, how):
    """-> [voting.Vote] a layer, of `tokens` + 1 keys: the document's, then all others together.

    prefills: of several questions over one copy. `how`: of COMBINATIONS, over the questions, position
    by position; what a question's rows give each other is summed first.
    """
    votes = []
    for layer in range(len(prefills[0].votes)):
        each = [run.votes[layer].scores for run in prefills]
        each = [np.hstack([s[:, :tokens], s[:, tokens:].sum(axis=1, keepdims=True)]) for s in each]
        votes.append(voting.vote(COMBINATIONS[how](each, axis=0), tokens))
    return votes


def decide(votes, tokens, eviction):
    """What the combined votes keep of the document: policy.Decision. Never by measured importance."""
    triple = eviction.triple
    if triple.voters != "masks" or triple.layers == "online":
        raise ValueError("policy: expected masks as voters and layers that nothing measures")
    importance = list(eviction.profile) if eviction.profile else [0.0] * len(votes)
    return policy.decide(
        triple, votes, importance, eviction.budget, eviction.alpha, eviction.beta, tokens
    )


def kept_of(copy, kept):
    """The copy's pairs at the kept positions: [forward.Pairs] a layer."""
    return [
        forward.Pairs(
            [k[np.array(p, dtype=int)] for k, p in zip(pairs.k, heads)],
            [v[np.array(p, dtype=int)] for v, p in zip(pairs.v, heads)],
        )
        for pairs, heads in zip(copy, kept)
    ]
