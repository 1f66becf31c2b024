# SPDX-License-Identifier: Apache-2.0
"""Golden decodings with a response feature cache: tests/data/golden/response (keys: README.md there)."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from maskkv_oracle import (
    bounds,
    checkpoint,
    decode,
    golden_cases,
    golden_refresh,
    golden_run,
    named,
    ops,
    prefill,
    random_checkpoint,
    refresh,
    response_cache,
)

RUNS = 6  # of the bounds' measurement
BUDGET = 5


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    every: int
    share: float
    policy: str | None = "masks/uniform/preference"  # None: no cache, "full": every pair
    refresh_every: int = 0
    prompt: int = 14
    sampling: decode.Sampling = decode.Sampling(12, 12, 6)


_BLOCKS = decode.Sampling(12, 4, 12)
_THRESHOLD = decode.Sampling(
    12, 6, 1, rule=decode.Rule("threshold", threshold=0.5, low_threshold=0.35, factor=2.2)
)
_ENTROPY = decode.Sampling(12, 12, 6, rule=decode.Rule("entropy"))
_SAMPLED = decode.Sampling(12, 6, 6, temperature=0.7, seed=4)

CASES = {
    "mha-2-0.25": Case("mha", 2, 0.25, sampling=_BLOCKS),
    "mha-5-0.1": Case("mha", 5, 0.1, sampling=_BLOCKS),
    "mha-8-0.5-full": Case("mha", 8, 0.5, "full", prompt=17),
    "mha-3-0.25-none": Case("mha", 3, 0.25, None, prompt=7),
    "mha-4-1": Case("mha", 4, 1.0),
    "mha-3-0.3-refresh-2": Case("mha", 3, 0.3, refresh_every=2),
    "mha-4-0.25-refresh-5": Case("mha", 4, 0.25, refresh_every=5, sampling=_BLOCKS),
    "gqa-4-0.25-sampled": Case("gqa", 4, 0.25, sampling=_SAMPLED),
    "gqa-3-0.34-threshold": Case("gqa", 3, 0.34, "full", sampling=_THRESHOLD),
    "odd-9-0.2": Case("odd", 9, 0.2, sampling=_BLOCKS),
    "dream-2-0.25": Case("dream", 2, 0.25, sampling=_BLOCKS),
    "dream-5-0.1-none": Case("dream", 5, 0.1, None, prompt=7),
    "dream-4-0.3-entropy": Case("dream", 4, 0.3, "full", sampling=_ENTROPY),
    "dream-3-0.25-refresh-4": Case("dream", 3, 0.25, refresh_every=4),
    "moe-gqa-3-0.25": Case("moe_gqa", 3, 0.25),
}


def _decode(model, prompt, params, case, eviction, cached):
    """-> (decode.Answer, [refresh.Entry], none without a cache)"""
    if case.policy is None:
        return decode.run(model, prompt, params, run_rows=cached.run_rows), []
    schedule = refresh.Schedule(every=case.refresh_every)
    return refresh.run(model, prompt, params, eviction, schedule, response=cached)


def _step_values(model, prompt, params, case, answer, caches, choices, noise=None):
    """Results of every step along the exact decisions, {name: array}.

    caches: of each step and whether it is the first over it.
    """
    c = model.config
    cached = response_cache.ResponseCache(case.every, case.share, choices)
    forbidden = [c.mask_id] + ([c.eos_id] if params.suppress_eos else [])
    canvas, values = [c.mask_id] * params.gen_length, {}
    for number, (s, (cache, fresh)) in enumerate(zip(answer.steps, caches, strict=True)):
        if fresh:
            cached.restart()
        raw, routers = decode.answer_forward(
            model, prompt, canvas, cache, s.positions, noise, run_rows=cached.run_rows
        )
        values[f"logits {number}"] = raw
        values[f"confidence {number}"] = decode.confidence_of(raw, s.tokens, forbidden, noise)
        if params.rule.name == "entropy":
            values[f"score {number}"] = decode.scores_of(
                raw, s.tokens, forbidden, params, s.positions + len(prompt), s.step
            )
        if routers:
            values[f"router {number}"] = np.stack(routers)
        if cached.choices[-1][0] is not None:
            values[f"similarity {number}"] = np.stack(
                [choice.similarity for choice in cached.choices[-1]]
            )
        for position, token, _ in s.committed:
            canvas[position] = token
    return values


def _values(model, prompt, params, case, eviction, answer, entries, choices, noise=None):
    caches, values = [], {}
    for i, entry in enumerate(entries):
        fresh = entry.prefill
        if noise:
            fresh = prefill.run(model, prompt, params.gen_length, eviction, noise,
                                follow=entry.prefill, response=entry.response)
        values[f"log_scores {i}"] = np.log(np.stack([vote.scores for vote in fresh.votes]))
        values[f"preference {i}"] = np.stack([vote.preference for vote in fresh.votes])
        values[f"importance {i}"] = np.array(fresh.importance)
        caches += [(fresh.cache, step == 0) for step in range(len(entry.kept_mass))]
    if not entries:
        caches = [(None, False)] * len(answer.steps)
    return values | _step_values(
        model, prompt, params, case, answer, caches, choices, noise
    )  # fmt: skip


def _of(limits, number, names):
    return {name: limits[f"{name} {number}"] for name in names if f"{name} {number}" in limits}


def _case(name, case, model):
    prompt = golden_cases.prompt_of(golden_cases.Case(case.checkpoint, case.prompt, None, "maskkv"))
    params = dataclasses.replace(case.sampling, stop_ids=(model.config.eos_id,), ignore_eos=True)
    eviction = None
    if case.policy not in (None, "full"):
        eviction = prefill.Eviction(BUDGET, policy=named.parse(case.policy))
    cached = response_cache.ResponseCache(case.every, case.share)
    answer, entries = _decode(model, prompt, params, case, eviction, cached)
    args = (model, prompt, params, case, eviction, answer, entries, cached.choices)
    exact = _values(*args)
    limits = bounds.measure(lambda noise: _values(*args, noise), exact, runs=RUNS)
    for i, entry in enumerate(entries):
        decided = golden_refresh.decided_entry(
            entry, eviction, _of(limits, i, ("log_scores", "preference", "importance"))
        )
        if not all(all(layer) for layer in decided):
            raise ValueError(f"{name}: rounding could keep other pairs; take another case")
    steps = []
    for number, (s, choices) in enumerate(zip(answer.steps, cached.choices, strict=True)):
        of = _of(limits, number, ("logits", "confidence", "score", "router"))
        routing = None
        if model.config.experts:
            routing = golden_run.least_gap(model, exact[f"router {number}"])
        fields = golden_run.step_json(s, params, of, routing, len(prompt))
        whole = choices[0] is None
        similarity = None if whole else limits[f"similarity {number}"] + ops.U
        fields["chosen"] = None if whole else [[int(r) for r in c.chosen] for c in choices]
        fields["chosen_decided"] = None if whole else [
            c.decided(limit) for c, limit in zip(choices, similarity)
        ]  # fmt: skip
        steps.append(fields)
    clear = [s["decided"] and all(s["chosen_decided"] or [True]) for s in steps]
    return {
        "format": 1,
        "name": name,
        "model": f"tests/data/golden/checkpoints/{case.checkpoint}",
        "prompt_ids": prompt,
        "params": params.fields(),
        "policy": case.policy,
        "budget": BUDGET,
        "response_every": case.every,
        "response_share": case.share,
        "refresh_every": case.refresh_every,
        "kept": [
            [[[int(p) for p in head] for head in layer] for layer in entry.prefill.kept]
            for entry in entries
        ],
        "decided_steps": (clear + [False]).index(False),
        "steps": steps,
        "canvas": [int(t) for t in answer.canvas],
    }


def generate():
    """{name of a case: its fields}"""
    models, cases = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in {case.checkpoint for case in CASES.values()}:
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)
    for name, case in CASES.items():
        cases[name] = _case(name, case, models[case.checkpoint])
    return cases
