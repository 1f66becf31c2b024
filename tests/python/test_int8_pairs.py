# SPDX-License-Identifier: Apache-2.0
"""Int8 entries: the oracle's rounding, and the engine's answers over them against the oracle's."""

import json

import cli_runs
import numpy as np
import pytest

from maskkv_oracle import checkpoint, decode, golden_cases, int8_pairs, named, prefill

MASKS = 4  # of more, the last are end tokens of which one is as sure as another


def test_an_element_is_read_within_half_a_scale():
    rows = np.random.default_rng(1).normal(size=(50, 24)).astype(np.float32)
    rows[7] = 0
    q, scales = int8_pairs.quantise(rows)
    assert np.abs(q).max(axis=1).tolist() == [0 if i == 7 else 127 for i in range(50)]
    error = np.abs(int8_pairs.read(rows) - rows)
    assert (error <= (0.5 + 2.0**-15) * scales[:, None].astype(np.float64)).all()
    assert error.max() > 0 and not int8_pairs.read(rows)[7].any()


@pytest.mark.parametrize("path", list(golden_cases.EMBEDDED))
@pytest.mark.parametrize("flags,eviction", [
    (("--cache", "full"), None),
    (("--policy", "maskkv-no-layers", "--budget", "16"),
     prefill.Eviction(16, policy=named.parse("maskkv-no-layers"))),
])
def test_the_engine_answers_over_an_int8_entry_as_the_oracle_does(path, flags, eviction, tmp_path):
    model = checkpoint.load(golden_cases.ROOT / path)
    prompt = golden_cases.embedded_prompt(path, "low_confidence")
    kept = prefill.run(model, prompt, MASKS, eviction).cache
    params = decode.Sampling(MASKS, MASKS, MASKS, ignore_eos=True, stop_ids=(model.config.eos_id,))
    expected = decode.run(model, prompt, params, int8_pairs.cache(kept),
                          len(prompt) - model.config.shift)
    ids = tmp_path / "ids.json"
    ids.write_text(json.dumps(prompt))

    def generate(kv_dtype):
        return cli_runs.run(
            "generate", "--model", golden_cases.ROOT / path, "--prompt-ids", ids, "--gen-length",
            MASKS, "--block-length", MASKS, "--steps", MASKS, "--ignore-eos", "--kv-dtype",
            kv_dtype, "--json", *flags).json

    found = generate("int8")
    # In the order of positions: of masks that are both as sure as f32 can say, any may be first.
    committed = sorted(entry for step in found["steps"] for entry in step["committed"])
    of_oracle = sorted(entry for step in expected.steps for entry in step.committed)
    assert [c[:2] for c in committed] == [list(c[:2]) for c in of_oracle]
    # An element next to a tie may be rounded otherwise, to the next of 255 values: one of thousands.
    # What rounding all of them does to tiny-dream's confidences is thirty times as much.
    assert np.allclose([c[2] for c in committed], [c[2] for c in of_oracle], rtol=0, atol=2e-4)
    # A pair takes a byte an element and two scales.
    width = model.config.head_dim
    bytes_of = {t: generate(t)["memory_bytes"]["entry"] for t in ("f32", "bf16")}
    pairs, rest = divmod(found["memory_bytes"]["entry"], 2 * (width + 4) + 4)
    assert rest == 0 and pairs > 0
    assert bytes_of == {"f32": pairs * (8 * width + 4), "bf16": pairs * (4 * width + 4)}
