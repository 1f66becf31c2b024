# SPDX-License-Identifier: Apache-2.0
"""Golden decodings under classifier-free guidance: tests/data/golden/guidance (keys: README.md there)."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from maskkv_oracle import (
    bounds,
    checkpoint,
    decode,
    golden_cases,
    golden_run,
    guidance,
    prefill,
    random_checkpoint,
)

RUNS = 6  # of the bounds' measurement
BUDGET = 6


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    cache: str  # none | full | maskkv (offline)
    sampling: decode.Sampling
    prompt: int = 24


def _s(gen, block, steps, scale, **more):
    return decode.Sampling(gen, block, steps, cfg_scale=scale, ignore_eos=True, **more)


def _r(name, gen, block, scale, **numbers):
    return _s(gen, block, 1, scale, rule=decode.Rule(name, **numbers))


CASES = {
    "mha-none": Case("mha", "none", _s(8, 8, 8, 1.0)),
    "mha-full": Case("mha", "full", _s(8, 8, 8, 1.0)),
    "mha-maskkv": Case("mha", "maskkv", _s(8, 8, 8, 1.0), 28),
    "mha-maskkv-sampled": Case("mha", "maskkv", _s(8, 4, 8, 0.5, temperature=0.7, seed=5)),
    "gqa-none-half": Case("gqa", "none", _s(10, 5, 6, 0.5)),
    "gqa-maskkv-margin": Case(
        "gqa", "maskkv", _s(8, 8, 5, 2.0, rule=decode.Rule("topk_margin"))
    ),
    "odd-maskkv-threshold": Case("odd", "maskkv", _r("threshold", 8, 8, 0.3, threshold=0.4)),
    "dream-none": Case("dream", "none", _s(8, 8, 8, 1.0)),
    "dream-full": Case("dream", "full", _s(8, 4, 8, 2.0)),
    "dream-maskkv": Case("dream", "maskkv", _s(8, 8, 8, 1.0)),
    "dream-mqa-maskkv-slowfast": Case(
        "dream_mqa", "maskkv", _r("slowfast", 12, 12, 1.0, threshold=0.4, span_threshold=0.3)
    ),
}


@dataclasses.dataclass
class Prompts:
    """The prefills of a case: of its prompt and of the masked one; None without a cache."""

    conditional: prefill.Prefill | None
    unconditional: prefill.Prefill | None

    def caches(self):
        return [run.cache if run else None for run in (self.conditional, self.unconditional)]


def _prefills(model, case, prompt, eviction, noise=None, follow=None):
    if case.cache == "none":
        return Prompts(None, None)
    follow = follow or Prompts(None, None)
    return Prompts(*(
        prefill.run(model, ids, case.sampling.gen_length, eviction, noise, follow=before)
        for ids, before in ((prompt, follow.conditional),
                            (guidance.masked(model.config, prompt), follow.unconditional))
    ))  # fmt: skip


def _values(model, prompt, params, answer, prompts, noise=None):
    """Every real-valued result along the exact decisions: {name: array}."""
    c = model.config
    forbidden = [c.mask_id]
    canvas, values = [c.mask_id] * params.gen_length, {}
    cache, unconditional = prompts.caches()
    for name, run in (("conditional", prompts.conditional), ("masked", prompts.unconditional)):
        if run is None:
            continue
        values[f"log_scores {name}"] = np.log(np.stack([vote.scores for vote in run.votes]))
        values[f"preference {name}"] = np.stack([vote.preference for vote in run.votes])
    for s in answer.steps:
        raw = decode.step_forward(model, prompt, canvas, cache, s.positions, params, noise,
                                  unconditional=unconditional)[0]
        values[f"logits {s.step}"] = raw
        values[f"confidence {s.step}"] = decode.confidence_of(raw, s.tokens, forbidden, noise)
        if params.rule.name == "topk_margin":
            values[f"score {s.step}"] = decode.scores_of(
                raw, s.tokens, forbidden, params, s.positions + len(prompt), s.step)
        for position, token, _ in s.committed:
            canvas[position] = token
    return values


def _kept(name, run, eviction, limits, which):
    """Kept positions of a prefill, which no f32 implementation may choose otherwise."""
    bound = {key: float(limits[f"{value} {which}"].max()) for key, value in
             (("scores", "log_scores"), ("preference", "preference"))}
    margins = golden_run.prefill_margins(run, eviction, bound | {"importance": 0.0})
    clear = all(margins["head_budgets_decided"]) and all(map(all, margins["selection_decided"]))
    if not clear:
        raise ValueError(f"{name}: rounding could keep others of the {which} prompt; take another")
    return [[[int(p) for p in head] for head in layer] for layer in run.kept]


def _case(name, case, model, profile):
    prompt = golden_cases.prompt_of(golden_cases.Case(case.checkpoint, case.prompt, None, "maskkv"))
    params = dataclasses.replace(case.sampling, stop_ids=(model.config.eos_id,))
    eviction = prefill.Eviction(BUDGET, profile=profile) if case.cache == "maskkv" else None
    prompts = _prefills(model, case, prompt, eviction)
    cache, unconditional = prompts.caches()
    answer = decode.run(model, prompt, params, cache, unconditional=unconditional)
    exact = _values(model, prompt, params, answer, prompts)

    def evaluate(noise):
        noisy = _prefills(model, case, prompt, eviction, noise, prompts)
        return _values(model, prompt, params, answer, noisy, noise)

    limits = bounds.measure(evaluate, exact, runs=RUNS)

    def of(number):
        return {n.split()[0]: v for n, v in limits.items() if n.split()[1] == str(number)}

    kept = [_kept(name, run, eviction, limits, which) if eviction else None for run, which in
            ((prompts.conditional, "conditional"), (prompts.unconditional, "masked"))]
    return {
        "format": 1,
        "name": name,
        "model": f"tests/data/golden/checkpoints/{case.checkpoint}",
        "prompt_ids": prompt,
        "params": params.fields(),
        "cache": case.cache,
        "budget": BUDGET,
        "profile": list(profile),
        "kept": kept[0],
        "unconditional_kept": kept[1],
        "steps": [golden_run.step_json(s, params, of(s.step), None, len(prompt))
                  for s in answer.steps],
        "canvas": [int(t) for t in answer.canvas],
    }  # fmt: skip


def generate():
    """{name of a case: its fields}"""
    models, profiles, cases = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in {case.checkpoint for case in CASES.values()}:
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)
            profiles[name] = golden_run.measure_profile(
                models[name], golden_cases.profile_prompts(name), 12)
    for name, case in CASES.items():
        cases[name] = _case(name, case, models[case.checkpoint], profiles[case.checkpoint])
    return cases
