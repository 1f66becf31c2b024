# SPDX-License-Identifier: Apache-2.0
"""Denoising, block by block, over kept pairs or without a cache, by any rule of `rules`.

Every step recomputes all gen_length answer rows over [kept prompt pairs | answer rows] (prompt rows
are never recomputed), or, without a cache, the whole canvas, or, where a cache serves only the first
tokens of the prompt (a document that was asked about before), the rest of the prompt too. Only masked
positions of the current block are candidates; all later masks are present. Where logits are shifted,
every step computes the last prompt token's row too: its output is the first mask's prediction.

A canvas may start with given tokens between its masks, and the prompt may go on after it (`suffix`):
the cache then knows pairs on both sides of the canvas, or without one the suffix is rows too. All of
such a canvas is the answer: stop ids end nothing.
"""

import dataclasses
import itertools

import numpy as np

from maskkv_oracle import forward, guidance, ops, prefill, rules, sampling, slowfast


@dataclasses.dataclass(frozen=True)
class Rule:
    name: str = "low_confidence"
    eps: float = 1e-3
    alg_temp: float = 0.0
    threshold: float = 0.9
    low_threshold: float = 0.4
    factor: float = 1.0
    span_threshold: float = 0.3  # this and the next two: slowfast
    explore_steps: int = 6
    stable_steps: int = 2
    top_p: float = 1.0
    top_k: int = 0

    @property
    def scheduled(self):
        return self.name in rules.SCHEDULED

    def numbers(self):
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "name"}

    def fields(self):
        """For JSON: the numbers of other rules are in every file, those of slowfast in its own, top_p
        and top_k where they filter."""
        own = ("span_threshold", "explore_steps", "stable_steps")
        return {k: v for k, v in dataclasses.asdict(self).items()
                if (self.name == "slowfast" or k not in own)
                and (k not in ("top_p", "top_k") or v != getattr(Rule(), k))}


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
    rule: "Rule" = Rule()
    canvas: tuple = ()  # token ids, mask ids where nothing is decided; (): masks
    suffix: tuple = ()  # prompt tokens after the canvas
    cfg_scale: float = 0.0  # above 0: maskkv_oracle.guidance

    @property
    def fills_in(self):
        return bool(self.canvas or self.suffix)

    def start(self, mask_id):
        """The canvas before the first step."""
        return list(self.canvas) or [mask_id] * self.gen_length

    @property
    def blocks(self):
        return self.gen_length // self.block_length

    def fields(self):
        """For JSON; without the rule, canvas, suffix and cfg_scale where they are the usual ones."""
        fields = dataclasses.asdict(self) | {"stop_ids": list(self.stop_ids),
                                             "rule": self.rule.fields()}
        for name, usual in (("rule", Rule()), ("canvas", ()), ("suffix", ()), ("cfg_scale", 0)):
            if getattr(self, name) == usual:
                del fields[name]
        return fields

    def check(self):
        if self.gen_length % self.block_length:
            raise ValueError("gen_length must be a multiple of block_length")
        if self.rule.scheduled and self.steps % self.blocks:
            raise ValueError("steps must be a multiple of the number of blocks")
        if self.canvas and len(self.canvas) != self.gen_length:
            raise ValueError("canvas: expected gen_length ids")
        if self.fills_in and self.cfg_scale:
            raise ValueError("cfg_scale: expected 0 with a canvas or a suffix")


@dataclasses.dataclass
class Step:
    step: int  # counted over all blocks from 0; steps that would commit nothing are skipped
    positions: np.ndarray  # candidates: masked answer positions of the block, ascending
    logits: np.ndarray  # (candidates, vocab_rows), raw: nothing removed
    tokens: np.ndarray  # (candidates): the prediction
    confidence: np.ndarray  # (candidates)
    score: np.ndarray  # (candidates): what the rule ranks by
    logit_gap: np.ndarray  # (candidates): best minus second best of what the arg-max ran over
    committed: list  # [(answer position, token, confidence)], ascending positions
    # Quotas: least score committed minus largest left, None: all committed. Other rules: the least
    # distance of two scores, or of a score and what the rule compares it with; None: it asks none.
    commit_gap: float | None


@dataclasses.dataclass
class Answer:
    steps: list
    canvas: list  # answer tokens, mask ids where nothing is committed
    tokens: list  # up to, without, the first stop id or mask
    finish_reason: str  # "stop" or "length"


def answer_forward(
    model, prompt, canvas, cache, rows, noise=None, served=None, suffix=(),
    run_rows=forward.run_rows,
):
    """Raw logits (rows, vocab) of answer positions `rows`, and each layer's router logits or None.

    The cache stands for the first `served` tokens of the prompt (None: all candidates; no cache:
    none), the others are rows as the answer's are. suffix: prompt tokens after the canvas, which the
    cache stands for unless it stands for a part of the prompt only.

    run_rows: forward.run_rows or what stands for it.
    """
    n_p = prefill.candidates_of(model.config, prompt)
    if served is None:
        served = 0 if cache is None else n_p
    if served > n_p:
        raise ValueError(f"served: found {served}, expected at most {n_p}")
    ids = list(prompt[served:]) + list(canvas)
    if cache is None or served < n_p:
        ids += suffix
    positions = np.arange(served, served + len(ids))
    traces = list(run_rows(model, ids, positions, cache, noise))
    predicting = n_p - served + np.asarray(rows)
    routers = [trace.router for trace in traces] if model.config.experts else None
    return forward.logits(model, traces[-1].out[predicting], noise), routers


def answer_logits(model, prompt, canvas, cache, rows, noise=None, served=None):
    """The logits of answer_forward."""
    return answer_forward(model, prompt, canvas, cache, rows, noise, served)[0]


def step_forward(model, prompt, canvas, cache, rows, params, noise=None, served=None,
                 run_rows=forward.run_rows, unconditional=None):
    """answer_forward, guided if params.cfg_scale > 0; then the routers are of both forwards.

    unconditional: the masked prompt's cache where the prompt has one.
    """
    raw, routers = answer_forward(
        model, prompt, canvas, cache, rows, noise, served, params.suffix, run_rows
    )
    if params.cfg_scale == 0:
        return raw, routers
    masked = guidance.masked(model.config, prompt)
    without, more = answer_forward(
        model, masked, canvas, unconditional, rows, noise, served, run_rows=run_rows
    )
    routers = routers + more if routers else None
    return guidance.guide(raw, without, params.cfg_scale, noise), routers


def predict(raw, forbidden, noise_of_row, temperature, rule=Rule()):
    """-> (tokens, gaps): arg-max of raw (+ temperature * noise), forbidden ids removed first, then
    what the rule's top-p and top-k leave out."""
    values = raw.copy()
    values[:, forbidden] = -np.inf
    scale, border = temperature or 1.0, np.inf
    if rule.top_p < 1 or rule.top_k > 0:
        border = np.array([rules.filter_gap(v, scale, rule.top_p, rule.top_k) for v in values])
        values = np.stack([rules.filtered(v, scale, rule.top_p, rule.top_k) for v in values])
    if temperature > 0:
        values = values + temperature * np.stack([noise_of_row(i) for i in range(len(raw))])
    tokens = values.argmax(axis=1)  # the first, so the lowest id, of equals
    best_two = np.sort(values, axis=1)[:, -2:]
    return tokens, np.minimum(best_two[:, 1] - best_two[:, 0], border)


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


def masks_of_block(params, canvas, mask_id, block):
    begin = block * params.block_length
    return [i for i in range(begin, begin + params.block_length) if canvas[i] == mask_id]


def places(params, canvas, mask_id):
    """Where each step stands: block, step (over all blocks), block_step, block_steps, block_masks.

    Steps that would commit nothing whatever is predicted are left out. Looks at the canvas anew for
    every step.
    """
    scheduled, taken = params.rule.scheduled, 0
    per_block = params.steps // params.blocks if scheduled else 0
    for block in range(params.blocks):
        block_masks = len(masks_of_block(params, canvas, mask_id, block))
        for step in itertools.count():
            masks = len(masks_of_block(params, canvas, mask_id, block))
            if masks == 0:
                break
            place = {
                "block": block,
                "step": block * per_block + step if scheduled else taken,
                "block_step": step,
                "block_steps": per_block,
                "block_masks": block_masks,
            }
            if rules.count(params.rule.name, masks, place, params.rule.eps) > 0:
                taken += 1
                yield place


def scores_of(raw, tokens, forbidden, params, positions, step):
    """(candidates): what the rule ranks the predictions by."""
    name = params.rule.name
    if name == "random":
        return np.array([
            rules.uniform(params.seed, int(p), step, rules.RANDOM_CONFIDENCE) for p in positions
        ])  # fmt: skip
    if name not in rules.DREAM:
        return confidence_of(raw, tokens, forbidden)
    return np.array([
        rules.score_of(row, int(token), name, forbidden, params.temperature, params.rule.top_p,
                       params.rule.top_k)
        for row, token in zip(raw, tokens)
    ])  # fmt: skip


def commit_gap(rule, score, chosen):
    """How far the choice is from another one: Step.commit_gap. score: as it was ranked."""
    if rule.name in ("random", "origin"):
        return None  # exact numbers
    left = sorted(set(range(len(score))) - set(chosen))
    if rule.name == "low_confidence":
        return float(min(score[chosen]) - max(score[left])) if left else None
    if rule.name in rules.DREAM and not left:
        return None
    if rule.name == "prefix" or (rule.name == "threshold" and max(score) >= rule.threshold):
        return float(min(abs(s - rule.threshold) for s in score))  # their order decides nothing
    limits = list(rules.limits(rule.name, len(score), rule))
    if rule.name in rules.PARALLEL and limits and min(score) > max(limits):
        return float(min(score) - max(limits))  # all are committed, in whatever order
    near = [abs(a - b) for a, b in itertools.combinations(score, 2)]
    near += [abs(s - x) for s in score for x in limits]
    return float(min(near)) if near else None


def committed_indices(params, scores, rows, context, looks):
    """What the rule commits of masks `rows`; looks: what it saw before in this block, added to."""
    if params.rule.name != "slowfast":
        return rules.commit(params.rule.name, scores, rows, context, **params.rule.numbers())
    looks.append(slowfast.Look(tuple(rows), tuple(scores)))
    return slowfast.commit(looks, **params.rule.numbers())


def run(model, prompt, params, cache=None, served=None, run_rows=forward.run_rows,
        cache_at=None, unconditional=None):
    """cache: pairs kept by prefill, one forward.Pairs a layer; None recomputes everything.

    served: tokens that the cache stands for, the first of the prompt; None: all.
    run_rows: the forward of each step, response_cache.ResponseCache(...).run_rows for example.
    cache_at: function of (canvas, candidates) that gives the cache of the step which comes next, in
    the place of `cache`; maskkv_oracle.refresh.
    unconditional: with cfg_scale, the masked prompt's cache; None as for `cache`.
    """
    params.check()
    c, n_p = model.config, len(prompt)
    canvas = params.start(c.mask_id)
    forbidden = [c.mask_id] + ([c.eos_id] if params.suppress_eos else [])
    steps, finish, looks = [], "length", []
    for place in places(params, canvas, c.mask_id):
        if place["block_step"] == 0:
            looks = []
        rows = np.array(masks_of_block(params, canvas, c.mask_id, place["block"]))
        if cache_at:
            cache = cache_at(canvas, rows)
        raw = step_forward(
            model, prompt, canvas, cache, rows, params, None, served, run_rows, unconditional
        )[0]

        def noise_of_row(i):
            return sampling.gumbel(params.seed, n_p + int(rows[i]), place["step"], raw.shape[1])

        tokens, gaps = predict(raw, forbidden, noise_of_row, params.temperature, params.rule)
        confidence = confidence_of(raw, tokens, forbidden)
        score = scores_of(raw, tokens, forbidden, params, rows + n_p, place["step"])
        context = place | {"seed": params.seed, "first_position": n_p}
        chosen = committed_indices(params, list(score), [int(r) for r in rows], context, looks)
        committed = [(int(rows[i]), int(tokens[i]), float(confidence[i])) for i in chosen]
        for position, token, _ in committed:
            canvas[position] = token
        ranked = rules.ranked(list(score), rows, context, params.rule.alg_temp)
        gap = commit_gap(params.rule, np.array(ranked), chosen)
        steps.append(
            Step(place["step"], rows, raw, tokens, confidence, score, gaps, committed, gap)
        )
        ends = not params.ignore_eos and not params.fills_in
        if ends and stopped(canvas, c.mask_id, params.stop_ids):
            finish = "stop"
            break
    tokens = []
    for token in canvas:
        if token == c.mask_id or (token in params.stop_ids and not params.fills_in):
            break
        tokens.append(token)
    return Answer(steps, canvas, tokens, finish)
