# SPDX-License-Identifier: Apache-2.0
"""Golden decodings that refresh their cache: tests/data/golden/refresh (keys: README.md there)."""

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
    named,
    prefill,
    random_checkpoint,
    refresh,
)

RUNS = 6  # of the bounds' measurement
BUDGET = 5


@dataclasses.dataclass(frozen=True)
class Case:
    checkpoint: str
    schedule: refresh.Schedule
    policy: str = "maskkv"  # "maskkv" offline, "maskkv-online", or VOTERS/LAYERS/HEADS
    prompt: int = 24
    sampling: decode.Sampling = decode.Sampling(8, 8, 8)
    canvas: tuple = ()  # as golden_cases.Case
    suffix: int = 0


def _every(steps):
    return refresh.Schedule(every=steps)


_TWO_BLOCKS = decode.Sampling(10, 5, 6)
_SAMPLED = decode.Sampling(8, 4, 8, temperature=0.6, seed=5)

CASES = {
    "mha-every-1": Case("mha", _every(1)),
    "mha-every-2": Case("mha", _every(2)),
    "mha-every-3": Case("mha", _every(3)),
    "mha-online-every-1": Case("mha", _every(1), "maskkv-online"),
    "mha-online-every-2": Case("mha", _every(2), "maskkv-online"),
    "mha-online-every-3": Case("mha", _every(3), "maskkv-online"),
    "mha-floor": Case("mha", refresh.Schedule(floor=0.96)),
    "mha-full-every-2": Case("mha", _every(2), "full"),
    "gqa-every-2": Case("gqa", _every(2), sampling=_TWO_BLOCKS),
    "gqa-sampled-every-3": Case("gqa", _every(3), "maskkv-online", sampling=_SAMPLED),
    "gqa-front-every-2": Case("gqa", _every(2), "masks-front/uniform/preference"),
    "odd-all-every-3": Case("odd", _every(3), "all/uniform/preference"),
    "dream-every-1": Case("dream", _every(1)),
    "dream-online-every-3": Case("dream", _every(3), "maskkv-online", sampling=_TWO_BLOCKS),
    "dream-floor-or-every-4": Case("dream", refresh.Schedule(4, 0.94)),
}

# Filling in: in no committed file, as golden_cases.INFILL.
INFILL = {
    "infill-every-2": Case("mha", _every(2), canvas=(2, -2, 4), suffix=9),
    "infill-dream-floor-or-every-3": Case(
        "dream", refresh.Schedule(3, 0.94), canvas=(-2, 4, -1, 1), suffix=7
    ),
}


def _eviction(case, profile):
    if case.policy == "full":
        return None
    policy = named.parse(case.policy)
    return prefill.Eviction(BUDGET, profile=profile if case.policy == "maskkv" else None,
                            policy=policy)


def _values(model, prompt, params, eviction, answer, entries, noise=None):
    """Every real-valued result along the exact decisions: {name: array}."""
    c = model.config
    forbidden = [c.mask_id] + ([c.eos_id] if params.suppress_eos else [])
    canvas, steps, values = params.start(c.mask_id), iter(answer.steps), {}
    for i, entry in enumerate(entries):
        fresh = entry.prefill
        if noise:
            fresh = prefill.run(model, prompt, params.gen_length, eviction, noise,
                                follow=entry.prefill, response=entry.response,
                                suffix=params.suffix)
        values[f"log_scores {i}"] = np.log(np.stack([vote.scores for vote in fresh.votes]))
        values[f"preference {i}"] = np.stack([vote.preference for vote in fresh.votes])
        values[f"importance {i}"] = np.array(fresh.importance)
        for _ in entry.kept_mass:
            s = next(steps)
            raw = decode.answer_logits(model, prompt, canvas, fresh.cache, s.positions, noise)
            values[f"logits {s.step}"] = raw
            values[f"confidence {s.step}"] = decode.confidence_of(raw, s.tokens, forbidden, noise)
            values[f"kept_mass {s.step}"] = np.array(refresh.kept_mass(
                model, prompt, canvas, fresh.cache, s.positions, noise))
            for position, token, _ in s.committed:
                canvas[position] = token
    return values


def decided_entry(entry, eviction, limits):
    """[layers][heads]: no f32 implementation can keep other pairs here."""
    heads = [[True] * len(layer) for layer in entry.prefill.kept]
    if eviction is None:
        return heads
    bound = {name: float(limits[key].max()) for name, key in
             (("scores", "log_scores"), ("preference", "preference"), ("importance", "importance"))}
    by_profile = eviction.profile is not None or eviction.triple.layers == "uniform"
    margins = golden_run.prefill_margins(
        entry.prefill, dataclasses.replace(eviction, profile=entry.prefill.importance)
        if by_profile else eviction, bound)
    return [[bool((by_profile or margins["layer_budgets_decided"])
                  and margins["head_budgets_decided"][l] and selection)
             for selection in layer] for l, layer in enumerate(margins["selection_decided"])]


def _trigger_gap(entry, schedule, limits, after_last):
    """How far any comparison with the floor is from going the other way, beyond rounding."""
    gaps = []
    for number, mass in enumerate(entry.kept_mass[: len(entry.kept_mass) - after_last]):
        e = limits[number] + schedule.floor * limits[0]
        gaps.append(abs(mass - schedule.floor * entry.kept_mass[0]) - e)
    return min(gaps, default=1.0)


def _case(name, case, model, profile):
    plain = golden_cases.Case(case.checkpoint, case.prompt, case.sampling, "maskkv",
                              canvas=case.canvas, suffix=case.suffix)
    prompt = golden_cases.prompt_of(plain)
    params = dataclasses.replace(golden_cases.sampling_of(plain, model.config), ignore_eos=True)
    eviction = _eviction(case, profile)
    answer, entries = refresh.run(model, prompt, params, eviction, case.schedule)
    exact = _values(model, prompt, params, eviction, answer, entries)
    limits = bounds.measure(
        lambda noise: _values(model, prompt, params, eviction, answer, entries, noise),
        exact, runs=RUNS)  # fmt: skip

    def of(number):
        return {n.split()[0]: v for n, v in limits.items() if n.split()[1] == str(number)
                and n.split()[0] in ("logits", "confidence")}

    steps, shown = iter(answer.steps), []
    for i, entry in enumerate(entries):
        mine = [next(steps) for _ in entry.kept_mass]
        masses = [float(limits[f"kept_mass {s.step}"]) for s in mine]
        if case.schedule.floor and (
            _trigger_gap(entry, case.schedule, masses, entry is entries[-1]) <= 0
        ):
            raise ValueError(f"{name}: rounding could refresh at another step; take another floor")
        of_entry = {n.split()[0]: v for n, v in limits.items()
                    if n.split()[1] == str(i) and n.split()[0] in
                    ("log_scores", "preference", "importance")}
        shown.append({
            "response": [int(t) for t in entry.response],
            "kept": entry.prefill.kept_positions,
            "decided": decided_entry(entry, eviction, of_entry),
            "kept_mass": entry.kept_mass,
            "bounds": {"kept_mass": masses},
            "steps": [golden_run.step_json(s, params, of(s.step), None, len(prompt)) for s in mine],
        })  # fmt: skip
    return {
        "format": 1,
        "name": name,
        "model": f"tests/data/golden/checkpoints/{case.checkpoint}",
        "prompt_ids": prompt,
        "params": params.fields(),
        "policy": case.policy,
        "budget": BUDGET,
        "alpha": eviction.alpha if eviction else None,
        "beta": eviction.beta if eviction else None,
        "profile": list(profile),
        "refresh_every": case.schedule.every,
        "refresh_floor": case.schedule.floor,
        "entries": shown,
        "canvas": [int(t) for t in answer.canvas],
    }


def generate(of=None):
    """{name of a case: its fields}; of: CASES or INFILL"""
    models, profiles, cases = {}, {}, {}
    of = CASES if of is None else of
    with tempfile.TemporaryDirectory() as folder:
        for name in {case.checkpoint for case in of.values()}:
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)
            profiles[name] = golden_run.measure_profile(
                models[name], golden_cases.profile_prompts(name), 12)
    for name, case in of.items():
        cases[name] = _case(name, case, models[case.checkpoint], profiles[case.checkpoint])
    return cases
