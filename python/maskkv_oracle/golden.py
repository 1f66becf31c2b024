# SPDX-License-Identifier: Apache-2.0
"""Writes, or checks, the golden files that the C++ tests compare with.

    python -m maskkv_oracle.golden --out tests/data/golden            write them
    python -m maskkv_oracle.golden --out tests/data/golden --check    compare, write nothing

Keys, shapes and the use of margins and bounds: tests/data/golden/README.md.
"""

import argparse
import hashlib
import json
import math
import pathlib
import sys
import tempfile

import numpy as np

from maskkv_oracle import (
    checkpoint,
    golden_cases,
    golden_constrained,
    golden_decoding,
    golden_document,
    golden_guidance,
    golden_policies,
    golden_policy,
    golden_refresh,
    golden_response,
    golden_run,
    golden_sampling,
    golden_slowfast,
    golden_variable,
    prefill,
    random_checkpoint,
    tensor_file,
)

FORMAT = 1
GOLDEN = "tests/data/golden"


def _digits(value, digits=12):
    """Floats rounded to so many digits: small files, and nothing that another BLAS would change."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, dict):
        short = {"bounds": 4, "bounds_bf16": 4, "margins": 6}
        return {k: _digits(v, short.get(k, digits)) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_digits(v, digits) for v in value]
    return value


def _json(fields):
    """One key of the outer two levels a line, the rest compact."""
    def line(key, value, indent):
        if isinstance(value, dict) and value and indent < 4:
            inner = ",\n".join(line(k, v, indent + 2) for k, v in value.items())
            return f'{" " * indent}"{key}": {{\n{inner}\n{" " * indent}}}'
        if isinstance(value, list) and value and isinstance(value[0], dict):
            items = [" " * (indent + 2) + json.dumps(v, separators=(",", ":")) for v in value]
            return f'{" " * indent}"{key}": [\n' + ",\n".join(items) + f'\n{" " * indent}]'
        return f'{" " * indent}"{key}": {json.dumps(value, separators=(",", ":"))}'

    body = ",\n".join(line(k, v, 2) for k, v in fields.items())
    return ("{\n" + body + "\n}\n").encode()


def _case_files(name, head, model, prompt, params, cache, eviction, mode, reuse=None, **more):
    fields, tensors = golden_run.run(model, prompt, params, cache, eviction, reuse=reuse, **more)
    shown = None
    if eviction:
        shown = {name: getattr(eviction, name) for name in ("budget", "alpha", "beta")}
        shown["profile"] = list(eviction.profile) if eviction.profile else None
        shown["mode"] = mode
    fields = {
        "format": FORMAT,
        "name": name,
        **head,
        "prompt_ids": prompt,
        "params": params.fields(),
        "cache": cache,
        "eviction": shown,
        **({"reuse": {"document_tokens": reuse[0], "question_ids": reuse[1]}} if reuse else {}),
        **fields,
    }
    return {
        f"cases/{name}/case.json": _json(_digits(fields)),
        f"cases/{name}/tensors.safetensors": tensor_file.to_bytes(tensors),
    }


def _checkpoints(names):
    """-> {name: model}, {name: profile}"""
    models, profiles = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = pathlib.Path(folder) / name
            random_checkpoint.write(golden_cases.CHECKPOINTS[name], path)
            models[name] = checkpoint.load(path)  # through the files: shards and bf16 are real
            profiles[name] = golden_run.measure_profile(
                models[name], golden_cases.profile_prompts(name), 12
            )
    return models, profiles


def _files_of(cases, models, profiles):
    files = {}
    for name, case in cases.items():
        model, prompt = models[case.checkpoint], golden_cases.prompt_of(case)
        params = golden_cases.sampling_of(case, model.config)
        eviction = None
        if case.cache == "maskkv":
            profile = profiles[case.checkpoint] if case.mode == "offline" else None
            eviction = prefill.Eviction(case.budget, case.alpha, case.beta, profile)
        if name in golden_cases.STOP_AT_ANSWER_POSITION:
            params = golden_cases.with_stop_token(name, model, prompt, params, eviction)
        head = {"model": f"{GOLDEN}/checkpoints/{case.checkpoint}"}
        args = (name, head, model, prompt, params, case.cache, eviction, case.mode)
        reuse = (case.reuse[0], golden_cases.question_of(case)) if case.reuse else None
        files.update(_case_files(*args, reuse=reuse, large=name not in golden_cases.SMALL))
    return files


def _random_cases():
    files = {}
    for name, shape in golden_cases.CHECKPOINTS.items():
        for file, data in random_checkpoint.files(shape).items():
            files[f"checkpoints/{name}/{file}"] = data
    models, profiles = _checkpoints(golden_cases.CHECKPOINTS)
    files.update(_files_of(golden_cases.CASES, models, profiles))
    for name in golden_cases.POLICY_CHECKPOINTS:
        prompt = golden_cases.prompt_of(
            golden_cases.Case(name, golden_policies.PROMPT, None, "maskkv")
        )
        head = {"format": FORMAT, "model": f"{GOLDEN}/checkpoints/{name}"}
        fields = head | golden_policies.generate(models[name], prompt, profiles[name])
        files[f"policies/{name}.json"] = _json(_digits(fields))
    return files


def _tiny_cases():
    """The embedded model, by path: regenerated when it is trained anew. {} while there is none."""
    prompts = golden_cases.tiny_prompts(5)
    if not prompts:
        return {}
    path = golden_cases.ROOT / golden_cases.TINY
    model = checkpoint.load(path)
    digest = hashlib.sha256((path / "model.safetensors").read_bytes()).hexdigest()
    head = {"model": golden_cases.TINY, "model_sha256": digest}
    params = golden_cases.tiny_sampling(model, path)
    profile = golden_run.measure_profile(model, prompts[1:], params.gen_length)
    files = {}
    for cache, eviction in (
        ("none", None),
        ("full", None),
        ("maskkv", prefill.Eviction(32, profile=profile)),
    ):
        name = f"tiny-llada-{cache}"
        args = (name, head, model, prompts[0], params, cache, eviction, "offline")
        files.update(_case_files(*args, large=False, runs=4))
    return files


def _function_cases():
    return {
        "decoding.json": _json(golden_decoding.generate()),
        "policy.json": _json(golden_policy.generate()),
        "sampling.json": _json(golden_sampling.generate()),
        "slowfast.json": _json(golden_slowfast.generate()),
    }


def infill_cases():
    """The cases that fill in, which are in no committed file: {path: bytes} as of the others."""
    names = sorted({case.checkpoint for case in golden_cases.INFILL.values()})
    files = _files_of(golden_cases.INFILL, *_checkpoints(names))
    for name, fields in golden_refresh.generate(golden_refresh.INFILL).items():
        files[f"refresh/{name}.json"] = _json(_digits(fields))
    return files


def seeded_cases():
    """Those of golden_cases.SEEDED, in no committed file either."""
    names = sorted({case.checkpoint for case in golden_cases.SEEDED.values()})
    return _files_of(golden_cases.SEEDED, *_checkpoints(names))


def embedded_rule_cases():
    """Every rule on the embedded models, greedy over the whole cache and seeded over an evicted one.

    In no committed file either.
    """
    files = {}
    for path in golden_cases.EMBEDDED:
        model = checkpoint.load(golden_cases.ROOT / path)
        other = golden_cases.embedded_prompt(path, "low_confidence")[::-1]
        profile = golden_run.measure_profile(model, [other], 4)
        for rule in golden_cases.EMBEDDED_RULES:
            prompt = golden_cases.embedded_prompt(path, rule)
            for cache, temperature in (("full", 0.0), ("maskkv", 0.7)):
                params = golden_cases.embedded_sampling(model, rule, temperature)
                eviction = prefill.Eviction(16, profile=profile) if cache == "maskkv" else None
                name = f"{path.split('/')[1]}-{rule.replace('_', '-')}-{cache}"
                args = (name, {"model": path}, model, prompt, params, cache, eviction, "offline")
                files.update(_case_files(*args, large=False, runs=3))
    return files


def _refresh_cases():
    return {
        f"refresh/{name}.json": _json(_digits(fields))
        for name, fields in golden_refresh.generate().items()
    }


def _response_cases():
    return {
        f"response/{name}.json": _json(_digits(fields))
        for name, fields in golden_response.generate().items()
    }


def _constrained_cases():
    return {
        f"constrained/{name}.json": _json(_digits(fields))
        for name, fields in golden_constrained.generate().items()
    }


def _document_cases():
    return {
        f"document/{name}.json": _json(_digits(fields))
        for name, fields in golden_document.generate().items()
    }


def _guidance_cases():
    return {
        f"guidance/{name}.json": _json(_digits(fields))
        for name, fields in golden_guidance.generate().items()
    }


def _variable_cases(cases=golden_variable.generate):
    return {
        f"variable/{name}.json": _json(_digits(fields)) for name, fields in cases().items()
    }


def embedded_variable_cases():
    """Mixed masks and growing canvases on the embedded models, in no committed file either."""
    return _variable_cases(golden_variable.embedded)


PARTS = {
    "random": _random_cases,
    "tiny": _tiny_cases,
    "functions": _function_cases,
    "refresh": _refresh_cases,
    "response": _response_cases,
    "constrained": _constrained_cases,
    "document": _document_cases,
    "guidance": _guidance_cases,
    "variable": _variable_cases,
}


def part_of(name):
    """Which of PARTS makes the file."""
    if "/" not in name:
        return "functions"
    folder = name.split("/")[0]
    if folder in PARTS:
        return folder
    return "tiny" if name.startswith("cases/tiny-") else "random"


def generate():
    """{path below the golden folder: bytes}"""
    return {name: data for make in PARTS.values() for name, data in make().items()}


def _difference(found, expected, loose, path):
    """None, or where two JSON values differ. Floats: 1e-6 relative; margins, bounds: 1e-2."""
    if isinstance(expected, dict) and isinstance(found, dict) and found.keys() == expected.keys():
        pairs = [(k, found[k], expected[k]) for k in expected]
    elif isinstance(expected, list) and isinstance(found, list) and len(found) == len(expected):
        pairs = [(i, f, e) for i, (f, e) in enumerate(zip(found, expected))]
    elif isinstance(expected, float) or isinstance(found, float):
        relative = 1e-2 if loose else 1e-6
        if isinstance(found, (int, float)) and isinstance(expected, (int, float)):
            if math.isclose(found, expected, rel_tol=relative, abs_tol=1e-9):
                return None
        return f"{path}: found {found}, expected {expected}"
    else:
        same = found == expected and type(found) is type(expected)
        return None if same else f"{path}: found {found}, expected {expected}"
    for key, f, e in pairs:
        inside = loose or key in ("margins", "bounds", "bounds_bf16")
        if (text := _difference(f, e, inside, f"{path}.{key}")) is not None:
            return text
    return None


def compare(name, found, expected):
    """found: bytes on disk; expected: bytes generated now. -> None or what differs."""
    if found == expected:
        return None
    if name.endswith(".json"):
        return _difference(json.loads(found), json.loads(expected), False, name)
    if name.startswith("checkpoints/"):
        return f"{name}: the bytes differ"
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for side, data in (("found", found), ("expected", expected)):
            path = pathlib.Path(folder) / side
            path.write_bytes(data)
            sides.append(tensor_file.read(path))
    if {k: v.shape for k, v in sides[0].items()} != {k: v.shape for k, v in sides[1].items()}:
        return f"{name}: other tensors or shapes"
    for key, array in sides[1].items():
        worst = np.abs(sides[0][key] - array).max(initial=0)
        if worst > 1e-6 * np.abs(array).max(initial=0):
            return f"{name}: {key} differs by {worst}"
    return None


def check(folder, parts=tuple(PARTS)):
    """-> list of differences between the files of `parts` in `folder` and those generated now."""
    files = {name: data for part in parts for name, data in PARTS[part]().items()}
    on_disk = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"README.md"}
    old = sorted(n for n in on_disk - set(files) if part_of(n) in parts)
    stale = [f"{n}: not generated any more" for n in old]
    for name, data in files.items():
        path = folder / name
        text = compare(name, path.read_bytes(), data) if path.exists() else f"{name}: missing"
        stale += [text] if text else []
    return stale


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, required=True, help="the golden folder")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    args = parser.parse_args()
    if args.check:
        stale = check(args.out)
        print("\n".join(stale) if stale else "golden files are current")
        sys.exit(1 if stale else 0)
    files = generate()
    for old in sorted(args.out.rglob("*")):
        name = str(old.relative_to(args.out)) if old.is_file() else None
        if name and name not in files and name != "README.md":
            old.unlink()
            if not any(old.parent.iterdir()):
                old.parent.rmdir()
    for name, data in files.items():
        (args.out / name).parent.mkdir(parents=True, exist_ok=True)
        (args.out / name).write_bytes(data)
    decided = total = 0
    for name, data in files.items():
        if name.endswith("case.json"):
            steps = json.loads(data)["steps"]
            decided, total = decided + sum(s["decided"] for s in steps), total + len(steps)
    print(f"{len(files)} files, {sum(map(len, files.values()))} bytes; "
          f"{decided} of {total} steps decided beyond rounding")  # fmt: skip


if __name__ == "__main__":
    main()
