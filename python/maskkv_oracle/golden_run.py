# SPDX-License-Identifier: Apache-2.0
"""One golden case: results, margins and bounds (keys: tests/data/golden/README.md)."""

import dataclasses

import numpy as np

from maskkv_oracle import bounds, budgets, decode, forward, ops, prefill, rules, selection
from maskkv_oracle.sampling import gumbel

GUMBEL_ERROR = 2.0**-20  # of f32 noise: 2^-21 from the logarithms, as much again to spare


def kept_pairs(run):
    """K and V kept, (pairs of all layers and heads, head_dim): by layer, head, position."""
    k = [head for layer in run.cache for head in layer.k]
    v = [head for layer in run.cache for head in layer.v]
    return np.concatenate(k), np.concatenate(v)


def prefill_values(run):
    """The real-valued results of a prefill, by name, to be bounded."""
    k, v = kept_pairs(run)
    kept = [
        [v_.scores[h][np.array(p, int)].sum() for h, p in enumerate(heads)]
        for v_, heads in zip(run.votes, run.kept)
    ]
    values = {"router": np.stack(run.routers)} if run.routers else {}
    return values | {
        "logits": run.logits,
        "log_scores": np.log(np.stack([vote.scores for vote in run.votes])),
        "hidden": np.stack(run.hidden),
        "importance": np.array(run.importance),
        "preference": np.stack([vote.preference for vote in run.votes]),
        "log_prompt_mass": np.log(np.stack([vote.prompt_mass for vote in run.votes])),
        "log_kept_mass": np.log(np.array(kept)),
        "kept_share": np.array(run.kept_mass),
        "kept_k": k,
        "kept_v": v,
    }


def _names_of_bounds(measured):
    """Element-wise bounds -> one number a quantity (hidden: one a layer)."""
    result = {}
    for name, values in measured.items():
        name = name.replace("log_", "")  # an absolute error of a logarithm is a relative error
        if name == "hidden":
            result[name] = [float(layer.max()) for layer in values]
        else:
            result[name] = float(values.max())
    return result


@dataclasses.dataclass
class Asked:
    """What a case's steps answer, over its prefill's cache or none."""

    prompt: list  # the prompt of the prefill, or its document and another question
    served: int  # tokens of it that the cache stands for; without a cache 0
    whole: bool = False  # all pairs of the cache serve

    def cache(self, run):
        if self.served == 0 and not self.whole:
            return None
        return run.cache if self.whole else run.cache_of_first(self.served)


def prefill_of(model, prompt, params, eviction, noise=None, follow=None):
    """The prefill of a prompt around the canvas that the answer starts with."""
    return prefill.run(
        model, prompt, params.gen_length, eviction, noise, follow,
        params.start(model.config.mask_id), params.suffix,
    )  # fmt: skip


def asked(run, prompt, cache, reuse, suffix_tokens=0):
    """cache: the case's; reuse: None or (tokens of the document, ids of the question)."""
    if cache == "none":
        return Asked(prompt, 0)
    if reuse:
        return Asked(prompt[: reuse[0]] + reuse[1], reuse[0])
    return Asked(prompt, run.candidates - suffix_tokens, whole=True)


def least_gap(model, routers):
    """The least routing gap of a forward's layers and rows; None where there are no experts."""
    count = model.config.experts_per_token
    if count == 0:
        return None
    return min(float(forward.routing_gap(r, count).min()) for r in routers)


def step_values(model, asks, params, answer, run, noise=None):
    """Logits, confidences and router logits of every step, along the canvases of `answer`.

    -> {name: array}
    """
    c = model.config
    forbidden = [c.mask_id] + ([c.eos_id] if params.suppress_eos else [])
    canvas, result, cache = params.start(c.mask_id), {}, asks.cache(run)
    for s in answer.steps:
        raw, routers = decode.answer_forward(
            model, asks.prompt, canvas, cache, s.positions, noise, asks.served, params.suffix
        )
        result[f"logits {s.step}"] = raw
        if routers:
            result[f"router {s.step}"] = np.stack(routers)
        result[f"confidence {s.step}"] = decode.confidence_of(raw, s.tokens, forbidden, noise)
        if params.rule.name in rules.DREAM:  # the others rank by confidence, or by exact numbers
            result[f"score {s.step}"] = decode.scores_of(
                raw, s.tokens, forbidden, params, s.positions + len(asks.prompt), s.step
            )
        for position, token, _ in s.committed:
            canvas[position] = token
    return result


def measure(model, prompt, params, eviction, base, answer, asks, bf16=False, runs=None):
    """Bounds of prefill and (not in bf16) of every step: two dicts of element-wise bounds.

    And the exact values of the steps.
    """
    rough = bounds.round_weights_to_bf16(model) if bf16 else model

    def evaluate(noise):
        run = prefill_of(rough, prompt, params, eviction, noise, follow=base)
        values = prefill_values(run)
        if not bf16:
            values.update(step_values(rough, asks, params, answer, run, noise))
        return values

    exact = prefill_values(base)
    values = {} if bf16 else step_values(model, asks, params, answer, base)
    measured = bounds.measure(evaluate, exact | values, bf16, runs or bounds.RUNS)
    steps = {n: measured.pop(n) for n in values}
    return measured, steps, values


def prefill_margins(run, eviction, bound):
    """How far each decision is from another, and whether rounding could have made it otherwise."""
    offline = eviction.profile is not None
    basis = run.importance if not offline else list(eviction.profile)
    layer = budgets.layer_margin(basis, eviction.budget, eviction.beta, run.candidates)
    heads = [
        budgets.head_margin(vote.preference.tolist(), k, eviction.alpha, run.candidates)
        for vote, k in zip(run.votes, run.layer_budgets)
    ]
    edges = [
        [selection.boundary_scores(v.scores[h][: run.candidates], p) for h, p in enumerate(kept)]
        for v, kept in zip(run.votes, run.kept)
    ]
    e = bound["scores"]
    return {
        "layer_budgets": layer,
        "head_budgets": heads,
        "selection": edges,
        "layer_budgets_decided": bool(offline or layer is None or layer > bound["importance"]),
        "head_budgets_decided": [bool(m is None or m > bound["preference"]) for m in heads],
        "selection_decided": [
            [bool(x is None or x[0] - x[1] > e * (x[0] + x[1])) for x in layer] for layer in edges
        ],
    }


def step_json(s, params, limits, routing, prompt_tokens):
    """One step: predictions, what was committed, margins, bounds.

    limits: {name: element-wise bounds} of this step; routing: its least gap, None without experts.
    """
    bound = float(limits["logits"].max())
    if params.temperature > 0:  # value = logit + T * g in f32
        noise = np.stack(
            [gumbel(params.seed, prompt_tokens + int(p), s.step, s.logits.shape[1])
             for p in s.positions]
        )  # fmt: skip
        size = np.abs(s.logits) + params.temperature * np.abs(noise)
        bound_value = bound + float(params.temperature * GUMBEL_ERROR + 2 * ops.U * size.max())
    else:
        bound_value = bound
    confidence = float(limits["confidence"].max())
    score = float(limits["score"].max()) if "score" in limits else confidence
    if params.rule.alg_temp > 0:  # ranked in f32, with noise of at most 17
        score = score / params.rule.alg_temp + 17 * ops.U
    router = float(limits["router"].max()) if routing is not None else None
    experts = {} if routing is None else {"routing": routing}
    return {
        "step": s.step,
        "positions": [int(p) for p in s.positions],
        "tokens": [int(t) for t in s.tokens],
        "confidence": [float(c) for c in s.confidence],
        "committed": [list(c) for c in s.committed],
        "margins": {"logit": [float(g) for g in s.logit_gap], "commit": s.commit_gap} | experts,
        "bounds": {"logits": bound, "value": bound_value, "confidence": confidence}
        | ({} if routing is None else {"router": router}),
        "decided": bool(
            (routing is None or routing > 2 * router)
            and s.logit_gap.min() > 2 * bound_value
            and (s.commit_gap is None or s.commit_gap > 2 * score)
        ),
    }


def run(model, prompt, params, cache, eviction, large=True, runs=None, reuse=None):
    """-> (JSON fields, {tensor name: array}); large: hidden states and kept pairs too"""
    base = prefill_of(model, prompt, params, eviction)
    asks = asked(base, prompt, cache, reuse, len(params.suffix))
    answer = decode.run(model, asks.prompt, params, asks.cache(base), asks.served)
    args = (model, prompt, params, eviction, base, answer, asks)
    measured, step_bounds, step_exact = measure(*args, runs=runs)
    bound = _names_of_bounds(measured)
    routing = least_gap(model, base.routers)
    if routing is not None and routing <= 2 * bound["router"]:
        raise ValueError("experts: rounding could choose others; take another seed")
    rough = None
    if not model.config.experts:  # in bf16 experts are chosen otherwise, and all is different
        rough = _names_of_bounds(measure(*args, bf16=True, runs=4)[0])

    def of_step(values, number):
        return {n.split()[0]: v for n, v in values.items() if n.split()[1] == str(number)}

    fields = {
        "prefill": {
            "importance": base.importance,
            "preference": [vote.preference.tolist() for vote in base.votes],
            "prompt_mass": [vote.prompt_mass.tolist() for vote in base.votes],
            "mask_mass": [vote.mask_mass.tolist() for vote in base.votes],
            "kept_share": base.kept_mass,
            "layer_budgets": base.layer_budgets,
            "head_budgets": base.head_budgets,
            "kept": base.kept_positions if cache == "maskkv" else None,
        },
        "margins": prefill_margins(base, eviction, bound) if eviction else None,
        **({} if routing is None else {"routing": {"margin": routing, "bound": bound["router"]}}),
        "bounds": bound,
        "bounds_bf16": rough,
        "steps": [
            step_json(s, params, of_step(step_bounds, s.step),
                      least_gap(model, of_step(step_exact, s.step).get("router")),
                      len(asks.prompt))
            for s in answer.steps
        ],
        "answer": {
            "tokens": [int(t) for t in answer.tokens],
            "canvas": [int(t) for t in answer.canvas],
            "finish_reason": answer.finish_reason,
        },
    }  # fmt: skip
    tensors = {
        "logits": base.logits,
        "scores": np.stack([vote.scores for vote in base.votes]),
        "step_logits": answer.steps[0].logits,
    }
    if large:
        tensors["hidden"] = np.stack(base.hidden)
    if large and cache == "maskkv":
        tensors["kept_k"], tensors["kept_v"] = kept_pairs(base)
    return fields, {name: array.astype(np.float32) for name, array in tensors.items()}


def measure_profile(model, prompts, masks):
    """Offline profile: importance of every layer, the mean over the prompts; 12 digits."""
    each = [prefill.run(model, p, masks).importance for p in prompts]
    return tuple(float(f"{x:.12g}") for x in np.mean(each, axis=0))
