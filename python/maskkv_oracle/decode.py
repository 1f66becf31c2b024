# SPDX-License-Identifier: Apache-2.0
"""Low-confidence remasking, block by block, over kept pairs or without a cache.

Every step recomputes all gen_length answer rows over [kept prompt pairs | answer rows] (prompt rows
are never recomputed), or, without a cache, the whole canvas, or, where a cache serves only the first
tokens of the prompt (a document that was asked about before), the rest of the prompt too. Only masked
positions of the current block are candidates; all later masks are present. Where logits are shifted,
every step computes the last prompt token's row too: its output is the first mask's prediction.
"""

import dataclasses

import numpy as np

from maskkv_oracle import forward, ops, prefill, sampling


@dataclasses.dataclass(frozen=True)
class Sampling:
    gen_length: int
    block_length: int
    steps: int
    temperature: float = 0.0
    seed: int = 0
    suppress_eos: bool = False  # the eos id is never predicted
    ignore_eos: bool = False  # decode the whole canvas even after an eos is decided
    stop_ids: tuple = ()  # ids that end an answer

    def check(self):
        if self.gen_length % self.block_length:
            raise ValueError("gen_length must be a multiple of block_length")
        if self.steps % (self.gen_length // self.block_length):
            raise ValueError("steps must be a multiple of the number of blocks")


@dataclasses.dataclass
class Step:
    step: int  # counted over all blocks from 0; steps that would commit nothing are skipped
    positions: np.ndarray  # candidates: masked answer positions of the block, ascending
    logits: np.ndarray  # (candidates, vocab_rows), raw: nothing removed
    tokens: np.ndarray  # (candidates): the prediction
    confidence: np.ndarray  # (candidates)
    logit_gap: np.ndarray  # (candidates): best minus second best of what the arg-max ran over
    committed: list  # [(answer position, token, confidence)], ascending positions
    commit_gap: float | None  # least confidence committed minus largest left; None: all committed


@dataclasses.dataclass
class Answer:
    steps: list
    canvas: list  # answer tokens, mask ids where nothing is committed
    tokens: list  # up to, without, the first stop id or mask
    finish_reason: str  # "stop" or "length"


def commit_count(masks, steps, step):
    """n / s tokens a step, the first n mod s steps one more."""
    return masks // steps + (1 if step < masks % steps else 0)


def answer_forward(model, prompt, canvas, cache, rows, noise=None, served=None):
    """Raw logits (rows, vocab) of answer positions `rows`, and each layer's router logits or None.

    The cache stands for the first `served` tokens of the prompt (None: all candidates; no cache:
    none), the others are rows as the answer's are.
    """
    tokens, n_p = len(prompt), prefill.candidates_of(model.config, prompt)
    if served is None:
        served = 0 if cache is None else n_p
    if served > n_p:
        raise ValueError(f"served: found {served}, expected at most {n_p}")
    ids = list(prompt[served:]) + list(canvas)
    positions = np.arange(served, tokens + len(canvas))
    traces = list(forward.run_rows(model, ids, positions, cache, noise))
    predicting = n_p - served + np.asarray(rows)
    routers = [trace.router for trace in traces] if model.config.experts else None
    return forward.logits(model, traces[-1].out[predicting], noise), routers


def answer_logits(model, prompt, canvas, cache, rows, noise=None, served=None):
    """The logits of answer_forward."""
    return answer_forward(model, prompt, canvas, cache, rows, noise, served)[0]


def predict(raw, forbidden, noise_of_row, temperature):
    """-> (tokens, gaps): arg-max of raw (+ temperature * noise), forbidden ids removed first."""
    values = raw.copy()
    values[:, forbidden] = -np.inf
    if temperature > 0:
        values = values + temperature * np.stack([noise_of_row(i) for i in range(len(raw))])
    tokens = values.argmax(axis=1)  # the first, so the lowest id, of equals
    best_two = np.sort(values, axis=1)[:, -2:]
    return tokens, best_two[:, 1] - best_two[:, 0]


def confidence_of(raw, tokens, forbidden, noise=None):
    """softmax(raw logits without forbidden ids)[token]; temperature never enters."""
    allowed = raw.copy()
    allowed[:, forbidden] = -np.inf
    keep = np.isfinite(allowed[0])
    p = np.zeros_like(raw)
    p[:, keep] = ops.softmax(allowed[:, keep], noise)
    return p[np.arange(len(raw)), tokens]


def stopped(canvas, mask_id, stop_ids):
    """Is everything up to and including the first stop id decided?"""
    for token in canvas:
        if token == mask_id:
            return False
        if token in stop_ids:
            return True
    return False


def run(model, prompt, params, cache=None, served=None, cache_at=None):
    """cache: pairs kept by prefill, one forward.Pairs a layer; None recomputes everything.

    served: tokens that the cache stands for, the first of the prompt; None: all.
    cache_at: function of (canvas, candidates) that gives the cache of the step which comes next, in
    the place of `cache`; maskkv_oracle.refresh.
    """
    params.check()
    c, n_p = model.config, len(prompt)
    canvas = [c.mask_id] * params.gen_length
    masked = [True] * params.gen_length
    forbidden = [c.mask_id] + ([c.eos_id] if params.suppress_eos else [])
    blocks = params.gen_length // params.block_length
    per_block = params.steps // blocks
    steps, finish = [], "length"
    for number in range(params.steps):
        block, step = divmod(number, per_block)
        count = commit_count(params.block_length, per_block, step)
        if count == 0:
            continue
        begin = block * params.block_length
        rows = np.array([i for i in range(begin, begin + params.block_length) if masked[i]])
        if cache_at:
            cache = cache_at(canvas, rows)
        raw = answer_logits(model, prompt, canvas, cache, rows, served=served)

        def noise_of_row(i):
            return sampling.gumbel(params.seed, n_p + int(rows[i]), number, raw.shape[1])

        tokens, gaps = predict(raw, forbidden, noise_of_row, params.temperature)
        confidence = confidence_of(raw, tokens, forbidden)
        order = sorted(range(len(rows)), key=lambda i: (-confidence[i], i))
        chosen, left = sorted(order[:count]), order[count:]
        gap = None
        if left:
            gap = float(min(confidence[i] for i in chosen) - max(confidence[i] for i in left))
        committed = [(int(rows[i]), int(tokens[i]), float(confidence[i])) for i in chosen]
        for position, token, _ in committed:
            canvas[position], masked[position] = token, False
        steps.append(Step(number, rows, raw, tokens, confidence, gaps, committed, gap))
        if not params.ignore_eos and stopped(canvas, c.mask_id, params.stop_ids):
            finish = "stop"
            break
    tokens = []
    for token in canvas:
        if token == c.mask_id or token in params.stop_ids:
            break
        tokens.append(token)
    return Answer(steps, canvas, tokens, finish)
