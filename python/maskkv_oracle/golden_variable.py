# SPDX-License-Identifier: Apache-2.0
"""Golden decodings with mixed masks and canvases that grow: tests/data/golden/variable."""

import dataclasses
import pathlib
import tempfile

import numpy as np

from maskkv_oracle import (
    bounds,
    checkpoint,
    golden_cases,
    golden_refresh,
    golden_run,
    ops,
    prefill,
    random_checkpoint,
    refresh,
    remix,
    variable,
)
from maskkv_oracle.decode import Rule, Sampling
from maskkv_oracle.growth import Growth

RUNS = 6  # of the bounds' measurement
PROMPT, BUDGET = 24, 5
JS_ERROR = 4 * ops.U  # of probabilities rounded to f32


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    cache: str  # none | full | maskkv
    sampling: Sampling
    mixing: remix.Mixing | None = None
    growth: Growth | None = None
    eos: int | None = None  # the end token instead of the checkpoint's
    prompt_seed: int = 0


def _mix(**numbers):
    return remix.Mixing(**({"top": 8, "threshold": 0.35, "js_threshold": 0.42} | numbers))


def _s(gen, block, steps=None, **more):
    return Sampling(gen, block, steps or gen, **({"ignore_eos": True} | more))


_SEEDED = {"temperature": 0.7, "seed": 11}
_SURE = Rule("threshold", threshold=0.45)

CASES = {
    "remix-mha-none": Case("mha", "none", _s(24, 12), _mix(), prompt_seed=3),
    "remix-mha-full": Case("mha", "full", _s(16, 8), _mix(threshold=0.5)),
    "remix-mha-seeded": Case(
        "mha", "maskkv", _s(16, 16, **_SEEDED), _mix(threshold=0.4), prompt_seed=5
    ),
    "remix-mha-heavy": Case("mha", "maskkv", _s(16, 16), _mix(weight=0.9, js_threshold=0.7)),
    "remix-gqa-maskkv": Case("gqa", "maskkv", _s(24, 12), _mix(), prompt_seed=2),
    "remix-gqa-seeded": Case("gqa", "full", _s(16, 16, **_SEEDED), _mix(top=3), prompt_seed=1),
    "remix-gqa-all": Case("gqa", "none", _s(12, 12), _mix(top=200, js_threshold=0.3)),
    "remix-dream-none": Case("dream", "none", _s(16, 16), _mix()),
    "remix-dream-maskkv": Case("dream", "maskkv", _s(24, 12), _mix(threshold=0.6), prompt_seed=1),
    "remix-dream-seeded": Case("dream", "full", _s(16, 8, **_SEEDED), _mix(threshold=0.5)),
    # The end token's probability rises from 0.1 to 0.3 as the canvas grows.
    "growth-mha-none": Case("mha", "none", _s(8, 4), None, Growth(24, 4, 8, 0.2), 80),
    "growth-mha-maskkv": Case(
        "mha", "maskkv", _s(8, 4, 4), None, Growth(32, 8, 16, 0.02, 0.3, 0.3), 104
    ),
    "growth-mha-limit": Case("mha", "full", _s(8, 8, 3), None, Growth(24, 16, 8, 1.0), 70),
    "growth-dream-stop": Case(
        "dream", "full", _s(8, 4, ignore_eos=False), None, Growth(32, 4, 8, 0.3), 3
    ),
    "growth-gqa-seeded": Case(
        "gqa", "maskkv", _s(8, 4, rule=_SURE, **_SEEDED), None,
        Growth(28, 4, 8, 0.008, 0.5, 0.2), 91
    ),
    "growth-dream-none": Case(
        "dream", "none", _s(8, 4, rule=_SURE), None, Growth(16, 4, 8, 0.065, 0.9, 0.3), 52
    ),
    "growth-dream-full": Case(
        "dream", "full", _s(8, 8, 4), None, Growth(24, 8, 32, 0.02, 0.5, 0.15), 59
    ),
    # Both at once.
    "both-gqa-maskkv": Case(
        "gqa", "maskkv", _s(12, 6), _mix(), Growth(24, 6, 6, 0.05, 0.9, 0.2), 91
    ),
    "both-dream-seeded": Case(
        "dream", "maskkv", _s(12, 6, **_SEEDED), _mix(), Growth(24, 12, 12, 0.1, 0.9, 0.2), 57
    ),
}  # fmt: skip

# On the embedded models; the checkpoint is not read. Trained models expect the end token at the end
# of any canvas, so that growth asks for more certainty than they have.
EMBEDDED = {
    "remix-full": Case("", "full", _s(6, 6), _mix(threshold=0.8)),
    "remix-maskkv-seeded": Case("", "maskkv", _s(6, 6, **_SEEDED), _mix(threshold=0.8),
                                prompt_seed=4),
    "growth-full": Case("", "full", _s(4, 4, 1), None, Growth(12, 4, 4, 0.9999, 0.9999, 0.9)),
    "growth-maskkv": Case("", "maskkv", _s(4, 4, rule=_SURE), None, Growth(12, 4, 4, 0.9999),
                          prompt_seed=22),
}  # fmt: skip
SHUFFLES = 40


def _entry(case, model, prompt, params, profile):
    """-> (prefill or None, eviction); raises where rounding could keep other pairs."""
    if case.cache == "none":
        return None, None
    eviction = prefill.Eviction(BUDGET, profile=profile) if case.cache == "maskkv" else None
    base = prefill.run(model, prompt, params.gen_length, eviction)
    if eviction:
        def of(run):
            return {"log_scores": np.log(np.stack([v.scores for v in run.votes])),
                    "preference": np.stack([v.preference for v in run.votes]),
                    "importance": np.array(run.importance)}

        limits = bounds.measure(
            lambda noise: of(prefill.run(model, prompt, params.gen_length, eviction, noise,
                                         follow=base)), of(base), runs=RUNS)  # fmt: skip
        entry = refresh.Entry([model.config.mask_id] * params.gen_length, base, [])
        decided = golden_refresh.decided_entry(entry, eviction, limits)
        if not all(all(layer) for layer in decided):
            raise ValueError("rounding could keep other pairs; take another prompt_seed")
    return base, eviction


def _margins(case, p, limits, index, first):
    """Names of what rounding could decide otherwise, beside the step itself.

    first: nothing is committed before this pass.
    """
    bound = {n: limits[f"{n} {index}"] for n in ("logits", "confidence", "certainty", "divergence")
             if f"{n} {index}" in limits}  # fmt: skip
    unsure = []
    if p.certainty is not None:
        count = min(case.growth.window, len(p.canvas))
        compared = [case.growth.eos_threshold] if first else []
        compared += [case.growth.eos_threshold_decoding] if p.step else []
        error = float(bound["certainty"]) / count
        unsure += ["certainty" for x in compared if abs(p.certainty - x) <= error]
    if case.growth and p.step is not None:
        near = [abs(c - case.growth.low_confidence) for c in p.step.confidence]
        if min(near) <= bound["confidence"].max():
            unsure.append("low confidence")
    error = iter(np.atleast_1d(bound.get("divergence", [])))
    for m in p.moved:
        if m.edge <= 2 * bound["logits"].max():
            unsure.append("best tokens")
        if m.divergence is not None:
            if abs(m.divergence - case.mixing.js_threshold) <= next(error) + JS_ERROR:
                unsure.append("divergence")
    return unsure


def _pass_json(params, p, limits, index, prompt_tokens):
    shown = {"canvas": len(p.canvas), "grown": p.grown, "certainty": p.certainty}
    if p.step is None:
        return {"step": p.number, **shown, "committed": []}
    of = {n: limits[f"{n} {index}"] for n in ("logits", "confidence")}
    fields = golden_run.step_json(p.step, params, of, None, prompt_tokens)
    if not fields["decided"]:
        raise ValueError("rounding could commit otherwise")
    return {"step": p.number, **shown, "committed": fields["committed"],
            "bound": fields["bounds"]["confidence"],
            "mixed": [m.position for m in p.moved if m.mixed]}  # fmt: skip


def _case(name, case, folder, prompt, model, profile):
    eos = model.config.eos_id if case.eos is None else case.eos
    params = dataclasses.replace(case.sampling, stop_ids=(eos,))
    base, eviction = _entry(case, model, prompt, params, profile)
    cache = base.cache if base else None
    answer = variable.run(model, prompt, params, cache, case.mixing, case.growth)
    exact = variable.values(model, prompt, params, answer, cache, case.mixing)

    def noisy(noise):
        rough = prefill.run(model, prompt, params.gen_length, eviction, noise, follow=base).cache \
            if base else None
        return variable.values(model, prompt, params, answer, rough, case.mixing, noise)

    limits = bounds.measure(noisy, exact, runs=RUNS)
    for index, p in enumerate(answer.passes):
        first = all(q.step is None for q in answer.passes[:index])
        unsure = _margins(case, p, limits, index, first)
        if unsure:
            raise ValueError(f"{name}: pass {index}: rounding could decide otherwise: {unsure}")
    return {
        "format": 1,
        "name": name,
        "model": folder,
        "prompt_ids": prompt,
        "params": {k: v for k, v in params.fields().items() if k != "rule"},
        "rule": case.mixing.spec() if case.mixing else (
            f"threshold:{params.rule.threshold!r}" if params.rule.name == "threshold"
            else params.rule.name),
        "growth": dataclasses.asdict(case.growth) if case.growth else None,
        "cache": case.cache,
        "budget": BUDGET,
        "profile": list(profile),
        "passes": [_pass_json(params, p, limits, i, len(prompt))
                   for i, p in enumerate(answer.passes)],
        "canvas": [int(t) for t in answer.canvas],
        "finish_reason": answer.finish_reason,
    }  # fmt: skip


def generate():
    """{name of a case: its fields}"""
    models, profiles, cases = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in sorted({case.checkpoint for case in CASES.values()}):
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)
            profiles[name] = golden_run.measure_profile(
                models[name], golden_cases.profile_prompts(name), 12)
    for name, case in CASES.items():
        prompt = golden_cases.prompt_of(golden_cases.Case(
            case.checkpoint, PROMPT, None, "maskkv", prompt_seed=case.prompt_seed))
        cases[name] = _case(name, case, f"tests/data/golden/checkpoints/{case.checkpoint}", prompt,
                            models[case.checkpoint], profiles[case.checkpoint])
    return cases


def _first_decided(name, case, folder, ids, model, profile):
    """The case over the first shuffling, from its prompt_seed on, that rounding decides nothing of."""
    for seed in range(case.prompt_seed, case.prompt_seed + SHUFFLES):
        prompt = [int(i) for i in np.random.default_rng(seed).permutation(ids)]
        try:
            return _case(name, case, folder, prompt, model, profile)
        except ValueError as error:
            why = error
    raise ValueError(f"{name}: none of {SHUFFLES} prompts will do, the last: {why}")


def embedded():
    """{name of a case: its fields} of the embedded models, which are in no committed file.

    Their prompts are shuffled: a question in order leaves nothing unsure, so that nothing is mixed.
    """
    cases = {}
    for folder in golden_cases.EMBEDDED:
        model = checkpoint.load(golden_cases.ROOT / folder)
        ids = golden_cases.embedded_prompt(folder, "low_confidence")
        profile = golden_run.measure_profile(model, [ids[::-1]], 4)
        for kind, case in EMBEDDED.items():
            name = f"{kind}-{pathlib.Path(folder).name}"
            cases[name] = _first_decided(name, case, folder, ids, model, profile)
    return cases
