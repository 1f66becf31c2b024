# SPDX-License-Identifier: Apache-2.0
"""The section "Figures" of docs/weights_cache.md, of what bench_weights and bench_shape measured.

    python -m maskkv_tools.weights_table FOLDER --model DIR --machine TEXT \\
        --markdown docs/weights_cache.md

FOLDER has load.json, share.json, steps.json (bench_weights), layer.json and prefill.json (bench_shape).
Without --markdown the section is printed.
"""

import argparse
import json
import pathlib

from maskkv_tools import sections

HEADING = "Figures"
FILES = ("load", "share", "steps", "layer", "prefill")
LOADS = {"own memory s": "packed into own memory", "new file s": "packed into a new file",
         "file s": "the file mapped, every checksum compared"}


def spread(values, digits=3):
    return (f"{values['median']:.{digits}f} ({values['min']:.{digits}f} to "
            f"{values['max']:.{digits}f})")


def checkpoint(directory):
    """A LLaDA checkpoint of one file, in words."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    size = (directory / "model.safetensors").stat().st_size
    return (f"{size / (1 << 30):.2f} GiB (bf16, {config['n_heads']} heads, {config['n_layers']} "
            f"layers, hidden {config['d_model']})")


def section(found, model, machine):
    """found: what the programs of FILES printed; model: of `checkpoint`."""
    load, steps, layer, prefill = (found[name] for name in ("load", "steps", "layer", "prefill"))
    lines = [
        f"Made by `scripts/bench-weights`; do not edit this section. Machine: {machine}. A checkpoint "
        f"of {model} in the page cache,",
        f"bf16, every core. Medians of {load['own memory s']['runs']} runs, least and most in brackets; "
        "the ways of a table take turns.", "",
        "| | seconds to load |", "| --- | --- |",
        *(f"| {what} | {spread(load[key])} |" for key, what in LOADS.items()), "",
        f"| {load['packed_bytes']:,} bytes of packed weights | Rss | Pss | private pages |",
        "| --- | --- | --- | --- |",
        *(f"| {name} of two processes | {one['Rss']:,} | {one['Pss']:,} | "
          f"{one.get('Private_Clean', 0) + one.get('Private_Dirty', 0):,} |"
          for name, one in zip(("the first", "the second"), found["share"], strict=True)), "",
        f"A decode step over the file takes {spread(steps['file / own memory'])} of the time over own "
        f"memory: {spread(steps['file ms'], 1)} ms and {spread(steps['own memory ms'], 1)} ms, both",
        "loaded anew for each run.", "",
        f"LLaDA-8B's exact shapes (`bench_shape`, bf16, on a checkpoint of "
        f"{layer['file_bytes'] / 1e9:.1f} GB of which {layer['file_bytes_on_disk'] / 1e6:.0f} MB are no "
        f"holes): the last layer's keys and values of {prefill['prompt_tokens']:,}",
        f"positions, {layer['rows advanced']} of its rows and the head give the known values, "
        f"{layer['wrong']} wrong, within {layer['worst error / tolerance']:.2f} of the tolerance. A "
        f"prefill of {prefill['layers']} such layers with",
        f"{prefill['prompt_tokens']:,} + 32 rows and B = 256 peaks at "
        f"{prefill['peak_bytes_above_weights']:,} bytes above the weights; with the entry of the other "
        f"layers that is {prefill['peak_bytes_of_all_layers'] / (1 << 30):.2f} GiB."]
    return "\n".join(lines)


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.weights_table",
                                     description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, required=True, help="that was loaded")
    parser.add_argument("--machine", required=True, help="what it ran on")
    parser.add_argument("--markdown", type=pathlib.Path, help="page whose section it becomes")
    args = parser.parse_args(argv)
    found = {name: json.loads((args.folder / f"{name}.json").read_text(encoding="utf-8"))
             for name in FILES}
    text = section(found, checkpoint(args.model), args.machine)
    if args.markdown is None:
        print(text)
    else:
        sections.write(args.markdown, HEADING, text)


if __name__ == "__main__":
    main()
