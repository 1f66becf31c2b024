# SPDX-License-Identifier: Apache-2.0
"""Decoding, pass by pass, with masks that are mixed (`remix`) and a canvas that grows (`growth`).

A pass is one forward of the canvas. It commits, or grows the canvas before the first commit.
"""

import dataclasses

import numpy as np

from maskkv_oracle import decode, growth, remix, rules, sampling


@dataclasses.dataclass
class Pass:
    number: int  # of the step
    canvas: list  # before it
    step: decode.Step | None  # None: it commits nothing
    rows: list  # positions it predicts: candidates, then others whose end is watched
    watched: list  # positions whose probability of the end token is looked at
    certainty: float | None  # None: nothing depends on it
    grown: int  # masks appended after it
    moved: list  # remix.Moved of the block's masks that are left


@dataclasses.dataclass
class Answer:
    passes: list
    canvas: list
    finish_reason: str


def probability_of(raw, token, forbidden, noise=None):
    """(rows): softmax over the ids that are not forbidden, at one token."""
    return decode.confidence_of(raw, np.full(len(raw), token), forbidden, noise)


def _place(params, scheduled, canvas, mask_id, block, block_step, taken):
    """The next step's place and the block it is in, or None: everything is decided."""
    per_block = params.steps // params.blocks if scheduled else 0
    while block < len(canvas) // params.block_length:
        masks = decode.masks_of_block(params, canvas, mask_id, block)
        place = {
            "step": block * per_block + block_step if scheduled else taken,
            "block_step": block_step,
            "block_steps": per_block,
            "block_masks": params.block_length,
        }
        if not masks:
            block, block_step = block + 1, 0
        elif scheduled and rules.count(params.rule.name, len(masks), place, params.rule.eps) == 0:
            block_step += 1
        else:
            return place, block
    return None, block


def run(model, prompt, params, cache=None, mixing=None, grows=None):
    """mixing: remix.Mixing, whose rule takes the place of params.rule, or None.

    grows: growth.Growth or None; the end token is the first of params.stop_ids.
    """
    params.check()
    mask, n_p = model.config.mask_id, len(prompt)
    canvas, passes, finish = [mask] * params.gen_length, [], "length"
    forbidden = [mask] + ([model.config.eos_id] if params.suppress_eos else [])
    mixer = remix.Mixer(mixing) if mixing else None
    scheduled = params.rule.scheduled and not mixing
    block, block_step, taken, settled = 0, 0, 0, False
    while True:
        place, found = _place(params, scheduled, canvas, mask, block, block_step, taken)
        may_grow = grows and growth.may_grow(grows, canvas, params.stop_ids)
        if place is None:
            if not may_grow:
                break
            passes[-1].grown += growth.grow(grows, canvas, mask)
            continue
        block, block_step = found, place["block_step"]
        candidates = decode.masks_of_block(params, canvas, mask, block)
        watched = growth.watched(grows, canvas, mask) if may_grow else []
        rows = candidates + [i for i in watched if i not in candidates]
        raw = decode.answer_logits(model, prompt, canvas, cache, rows) if not mixer else (
            decode.answer_forward(model, prompt, canvas, cache, rows,
                                  run_rows=mixer.rows(len(canvas)))[0])  # fmt: skip
        certainty = None
        if may_grow:
            ends = probability_of(raw, params.stop_ids[0], forbidden)
            certainty = growth.certainty(grows, canvas, [ends[rows.index(i)] for i in watched])
        before = list(canvas)
        if may_grow and not settled and certainty < grows.eos_threshold:
            count = growth.grow(grows, canvas, mask)
            passes.append(Pass(place["step"], before, None, rows, watched, certainty, count, []))
            continue
        settled = True
        own = raw[: len(candidates)]
        step = _step(params, canvas, place, np.array(candidates), own, forbidden, n_p, mixing)
        for position, token, _ in step.committed:
            canvas[position] = token
        moved = []
        if mixer:
            left = [i for i, p in enumerate(candidates) if canvas[p] == mask]
            moved = mixer.update([candidates[i] for i in left], own[left], forbidden)
        passes.append(Pass(place["step"], before, step, rows, watched, certainty, 0, moved))
        block_step, taken = block_step + 1, taken + 1
        if not params.ignore_eos and decode.stopped(canvas, mask, params.stop_ids):
            finish = "stop"
            break
        low = [c for p, c in zip(candidates, step.confidence) if canvas[p] == mask
               and grows and c < grows.low_confidence]
        if (low and certainty is not None and certainty < grows.eos_threshold_decoding
                and growth.may_grow(grows, canvas, params.stop_ids)):
            passes[-1].grown += growth.grow(grows, canvas, mask)
    return Answer(passes, canvas, finish)


def _step(params, canvas, place, rows, raw, forbidden, n_p, mixing):
    def noise_of_row(i):
        return sampling.gumbel(params.seed, n_p + int(rows[i]), place["step"], raw.shape[1])

    tokens, gaps = decode.predict(raw, forbidden, noise_of_row, params.temperature)
    confidence = decode.confidence_of(raw, tokens, forbidden)
    if mixing:
        score = confidence
        chosen = remix.commit(list(score), mixing.threshold)
        gap = remix.commit_gap(list(score), mixing.threshold, chosen)
    else:
        score = decode.scores_of(raw, tokens, forbidden, params, rows + n_p, place["step"])
        context = place | {"seed": params.seed, "first_position": n_p}
        chosen = rules.commit(params.rule.name, list(score), [int(r) for r in rows], context,
                              **params.rule.numbers())  # fmt: skip
        gap = decode.commit_gap(params.rule, np.array(score), chosen)
    committed = [(int(rows[i]), int(tokens[i]), float(confidence[i])) for i in chosen]
    return decode.Step(place["step"], rows, raw, tokens, confidence, score, gaps, committed, gap)


def values(model, prompt, params, answer, cache=None, mixing=None, noise=None):
    """Every real-valued result of each pass along the decisions of `answer`: {name: array}.

    logits, confidence of candidates; certainty; divergence of masks that had a prediction before.
    """
    mask = model.config.mask_id
    forbidden = [mask] + ([model.config.eos_id] if params.suppress_eos else [])
    mixer, result = (remix.Mixer(mixing) if mixing else None), {}
    for number, p in enumerate(answer.passes):
        more = {"run_rows": mixer.rows(len(p.canvas))} if mixer else {}
        raw = decode.answer_forward(model, prompt, p.canvas, cache, p.rows, noise, **more)[0]
        if p.certainty is not None:
            ends = probability_of(raw, params.stop_ids[0], forbidden, noise)
            mine = [ends[p.rows.index(i)] for i in p.watched]
            result[f"certainty {number}"] = np.array(sum(mine))
        if p.step is None:
            continue
        own = raw[: len(p.step.positions)]
        result[f"logits {number}"] = own
        result[f"confidence {number}"] = decode.confidence_of(
            own, p.step.tokens, forbidden, noise)
        if mixer:
            positions = [int(i) for i in p.step.positions]
            left = [positions.index(m.position) for m in p.moved]
            moved = mixer.update([m.position for m in p.moved], own[left], forbidden, p.moved)
            result[f"divergence {number}"] = np.array(
                [m.divergence for m in moved if m.divergence is not None])
    return result
