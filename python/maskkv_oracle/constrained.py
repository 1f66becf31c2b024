# SPDX-License-Identifier: Apache-2.0
"""Decoding whose answer is one that a token automaton accepts.

A completion of a canvas is an accepted answer followed by end ids. Before a step chooses tokens,
every mask loses the ids that are in no completion; what the rule chooses is committed one by one, by
descending score (ties: lower position), and what leaves no completion stays masked. Where a block's
schedule ends with masks left behind, all of them are chosen in further steps.

Nothing here is fast: an id is allowed where a forward simulation of the canvas with it, masks taking
any id, ends in acceptance.
"""

import dataclasses
import itertools

import numpy as np

from maskkv_oracle import decode, rules, sampling

END = "end"  # the state after an end id
ONLY = 1e9  # a margin of logits where one id alone is allowed


@dataclasses.dataclass(frozen=True)
class Automaton:
    """States 0 to states - 1; arcs (from, set, to); sets of ids as (first, last) ranges."""

    states: int
    start: int
    accepting: tuple
    sets: tuple
    arcs: tuple

    def fields(self):
        """For JSON, as `maskkv generate --automaton` reads it."""
        return {
            "states": self.states,
            "start": self.start,
            "accepting": list(self.accepting),
            "sets": [[bound for ids in ranges for bound in ids] for ranges in self.sets],
            "arcs": [number for arc in self.arcs for number in arc],
        }

    def ids(self, index):
        return {i for first, last in self.sets[index] for i in range(first, last + 1)}


@dataclasses.dataclass(frozen=True)
class Constraint:
    automaton: Automaton
    end_ids: tuple  # may follow an accepted answer
    mask_id: int

    def after(self, states, token):
        """The states after one canvas position; a mask takes any id."""
        a, reached = self.automaton, set()
        accepted = END in states or bool(states & set(a.accepting))
        if accepted and self.end_ids and (token == self.mask_id or token in self.end_ids):
            reached.add(END)
        for source, index, target in a.arcs:
            if source in states and (token == self.mask_id or token in a.ids(index)):
                reached.add(target)
        return reached

    def possible(self, canvas):
        states = {self.automaton.start}
        for token in canvas:
            states = self.after(states, token)
        return END in states or bool(states & set(self.automaton.accepting))

    def allowed(self, canvas, position):
        """Ids that the masked position may become."""
        tried = set(self.end_ids).union(*map(self.automaton.ids, range(len(self.automaton.sets))))
        return sorted(
            i for i in tried
            if self.possible([*canvas[:position], i, *canvas[position + 1 :]])
        )  # fmt: skip

    def forbidden(self, canvas, position, vocabulary):
        return sorted(set(range(vocabulary)) - set(self.allowed(canvas, position)))

    def fitting(self, canvas, predictions, chosen):
        """Indices of those that fit: predictions are (position, token, score)."""
        canvas, kept = list(canvas), []
        for i in sorted(chosen, key=lambda i: (-predictions[i][2], i)):
            position, token, _ = predictions[i]
            after = [*canvas[:position], token, *canvas[position + 1 :]]
            if self.possible(after):
                canvas, kept = after, [*kept, i]
        return sorted(kept)


def places(params, canvas, mask_id):
    """As decode.places, with the steps that follow a schedule which left masks behind."""
    scheduled, taken, late = params.rule.scheduled, 0, 0
    per_block = params.steps // params.blocks if scheduled else 0
    for block in range(params.blocks):
        for step in itertools.count():
            masks = len(decode.masks_of_block(params, canvas, mask_id, block))
            if masks == 0:
                late += max(0, step - per_block) if scheduled else 0
                break
            place = {
                "block": block,
                "step": block * per_block + step + late if scheduled else taken,
                "block_step": step,
                "block_steps": per_block,
                "block_masks": params.block_length,
                "overtime": scheduled and step >= per_block,
            }
            if place["overtime"] or rules.count(params.rule.name, masks, place, params.rule.eps):
                taken += 1
                yield place


def rows_of(raw, forbidden, params, rows, place, first_position, noise=None):
    """-> tokens, logit gaps, confidences, scores of rows that each forbid ids of their own."""
    tokens, gaps, confidences, scores = [], [], [], []
    for row, ids, position in zip(raw, forbidden, rows):
        at, row = first_position + int(position), row[None]
        token, gap = decode.predict(
            row, ids, lambda _: sampling.gumbel(params.seed, at, place["step"], row.shape[1]),
            params.temperature)  # fmt: skip
        tokens.append(int(token[0]))
        gaps.append(float(gap[0]) if np.isfinite(gap[0]) else ONLY)
        confidences.append(float(decode.confidence_of(row, token, ids, noise)[0]))
        scores.append(float(decode.scores_of(row, token, ids, params, [at], place["step"])[0]))
    return tokens, np.array(gaps), np.array(confidences), np.array(scores)


def commit_gap(params, scores, chosen, kept, sure, place):
    """How far the commits are from others; None: nothing that rounding could turn over.

    sure: rows of which one id alone is allowed, whose probability is exactly 1.
    """
    rule, near = params.rule, []
    exact = rule.name in ("random", "origin")
    left = sorted(set(range(len(scores))) - set(chosen))
    if not exact and not place["overtime"]:
        if rule.name in rules.PARALLEL:
            limits = rules.limits(rule.name, len(scores), rule)
            near += [abs(s - x) for i, s in enumerate(scores) for x in limits if not sure[i]]
            if left or rule.name == "factor":  # who is the best, and in which order
                near += [abs(scores[i] - scores[j])
                         for i, j in itertools.combinations(range(len(scores)), 2)
                         if not (sure[i] and sure[j])]  # fmt: skip
        else:
            near += [scores[i] - scores[j] for i in chosen for j in left
                     if not (sure[i] and sure[j])]  # fmt: skip
    if len(kept) < len(chosen) and rule.name != "random":  # the order of those that were tried
        near += [abs(scores[i] - scores[j]) for i, j in itertools.combinations(chosen, 2)
                 if not (sure[i] and sure[j])]  # fmt: skip
    return float(min(near)) if near else None


def run(model, prompt, params, automaton):
    """Without a cache. -> decode.Answer; ValueError if no answer fits."""
    params.check()
    c, n_p = model.config, len(prompt)
    suppressed = {c.eos_id} if params.suppress_eos else set()
    constraint = Constraint(
        automaton, tuple(i for i in params.stop_ids if i not in suppressed), c.mask_id
    )
    canvas = [c.mask_id] * params.gen_length
    if not constraint.possible(canvas):
        raise ValueError("automaton: no answer fits")
    steps, finish = [], "length"
    for place in places(params, canvas, c.mask_id):
        rows = np.array(decode.masks_of_block(params, canvas, c.mask_id, place["block"]))
        raw = decode.answer_logits(model, prompt, canvas, None, rows)
        forbidden = [constraint.forbidden(canvas, int(p), raw.shape[1]) for p in rows]
        tokens, gaps, confidence, score = rows_of(raw, forbidden, params, rows, place, n_p)
        context = place | {"seed": params.seed, "first_position": n_p}
        chosen = list(range(len(rows)))
        if not place["overtime"]:
            chosen = rules.commit(params.rule.name, list(score), [int(r) for r in rows], context,
                                  **params.rule.numbers())  # fmt: skip
        kept = constraint.fitting(canvas, list(zip(rows, tokens, score)), chosen)
        committed = [(int(rows[i]), tokens[i], float(confidence[i])) for i in kept]
        for position, token, _ in committed:
            canvas[position] = token
        gap = commit_gap(params, score, chosen, kept, gaps == ONLY, place)
        steps.append(decode.Step(
            place["step"], rows, raw, np.array(tokens), confidence, score, gaps, committed, gap
        ))  # fmt: skip
        if not params.ignore_eos and decode.stopped(canvas, c.mask_id, params.stop_ids):
            finish = "stop"
            break
    answer = list(itertools.takewhile(
        lambda token: token != c.mask_id and token not in params.stop_ids, canvas
    ))  # fmt: skip
    return decode.Answer(steps, canvas, answer, finish)
