# SPDX-License-Identifier: Apache-2.0
"""One request over the real processes and by the command line, for tests that compare the two.
`fields` are those of the Python client's generate."""

import json

import cli_runs

GROWTH = {"max_gen_length": "max-gen-length", "by": "grow-by", "window": "grow-window",
          "eos_threshold": "grow-eos", "eos_threshold_decoding": "grow-eos-decoding",
          "low_confidence": "grow-low-confidence"}
FLAGS = {"confidence_source": "confidence"}  # the others are spelt as the fields


def prefilled(stack, fields):
    """The ids of a prompt whose entry is there, so that all who ask begin to decode together."""
    record = json.loads((cli_runs.TINY / "calibration.jsonl").read_text().splitlines()[0])
    with stack.client() as client:
        ids = client.tokenize(document=record["document"], question=record["question"])
        client.prefill(tokens=ids, masks=fields["gen_length"], budget=fields["budget"])
    return ids


def alone(ids, fields, folder):
    """The engine's answer, by the command line."""
    path = folder / "ids.json"
    path.write_text(json.dumps(list(ids)))
    arguments = ["--prompt-ids", path, "--threads", 1, "--json", "--ignore-eos"]
    for name, value in fields.items():
        if name == "growth":
            for part, number in value.items():
                arguments += [f"--{GROWTH[part]}", number]
        elif name != "ignore_eos":
            arguments += [f"--{FLAGS.get(name, name).replace('_', '-')}", value]
    return cli_runs.run("generate", "--model", cli_runs.TINY, *arguments).json
