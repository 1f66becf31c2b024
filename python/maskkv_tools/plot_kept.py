# SPDX-License-Identifier: Apache-2.0
"""Draws what `maskkv inspect --json` printed: how many pairs each head kept, how much each head
prefers the prompt, and where in the prompt the kept pairs lie.

    maskkv inspect --model DIR --document FILE --json > kept.json
    python -m maskkv_tools.plot_kept kept.json kept.png
"""

import argparse
import json
import pathlib

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
import numpy as np  # noqa: E402
from matplotlib.colors import ListedColormap  # noqa: E402
from matplotlib.ticker import MaxNLocator  # noqa: E402

COLOURS = "viridis"
MOST_COLUMNS = 512  # of the map of positions
MOST_NUMBERS = 160  # cells of a heat map that are still labelled
MOST_NAMES = 40  # rows of the map of positions that are still named


def column_width(tokens):
    """Prompt positions that share a column of the map."""
    return max(1, -(-tokens // MOST_COLUMNS))


def position_map(report):
    """(layers * heads, columns): the share of a column's prompt positions that a head kept."""
    tokens = max(1, report["prompt_tokens"])
    width = column_width(tokens)
    columns = -(-tokens // width)
    available = np.full(columns, width)
    available[-1] = tokens - width * (columns - 1)
    heads = [head for layer in report["positions"] for head in layer]
    return np.array([np.bincount(np.array(head, dtype=int) // width, minlength=columns) / available
                     for head in heads])


def _position_colours():
    """White for nothing kept; the faintest share is already plain to see."""
    magma = matplotlib.colormaps["magma_r"](np.linspace(0.3, 1, 256))
    return ListedColormap(magma).with_extremes(under="white")


def _heat_map(figure, axes, values, title, unit, form, most=None):
    values = np.array(values, dtype=float)
    image = axes.imshow(values, aspect="auto", cmap=COLOURS, vmin=0, vmax=most,
                        interpolation="nearest")
    axes.set(title=title, xlabel="KV head", ylabel="layer")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=axes, label=unit)
    if values.size > MOST_NUMBERS:
        return
    for (layer, head), value in np.ndenumerate(values):
        dark = value < 0.6 * image.norm.vmax
        axes.text(head, layer, form.format(value), ha="center", va="center", fontsize=9,
                  color="white" if dark else "black")


def _positions(figure, axes, report):
    shares = position_map(report)
    tokens = report["prompt_tokens"]
    rows = len(shares)
    width = column_width(tokens)
    image = axes.imshow(shares, aspect="auto", cmap=_position_colours(), vmin=1e-9, vmax=1,
                        interpolation="nearest", extent=(0, width * shares.shape[1], rows, 0))
    axes.set_xlim(0, max(tokens, 1))
    each = "one position" if width == 1 else f"{width} positions"
    axes.set(title=f"Kept positions along the prompt (a column is {each})",
             xlabel="position in the prompt, tokens")
    heads = len(report["positions"][0])
    for boundary in range(heads, rows, heads):
        axes.axhline(boundary, color="0.6", linewidth=0.8)
    if rows <= MOST_NAMES:
        axes.set_ylabel("layer . head")
        axes.set_yticks(np.arange(rows) + 0.5,
                        [f"{row // heads}.{row % heads}" for row in range(rows)], fontsize=8)
    else:
        axes.set_ylabel("layer")
        layers = np.arange(rows // heads)
        axes.set_yticks((layers + 0.5) * heads, [str(layer) for layer in layers], fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the column kept", pad=0.02)


def draw(report):
    """A figure of the object that `maskkv inspect --json` prints."""
    rows = sum(len(layer) for layer in report["positions"])
    below = min(14.0, max(3.0, 0.2 * rows))
    figure = plt.figure(figsize=(12, 4.4 + below), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(3.6, below))
    everything = report["prompt_tokens"] * rows
    share = report["pairs"] / everything if everything else 1.0
    figure.suptitle(
        f"Kept {report['pairs']} of {everything} pairs ({share:.1%}) of a prompt of "
        f"{report['prompt_tokens']} tokens: {report['mass']:.1%} of the score of "
        f"{report['masks']} mask queries", fontsize=13)
    _heat_map(figure, figure.add_subplot(grid[0, 0]), report["per_head"], "Pairs kept", "pairs",
              "{:.0f}")
    _heat_map(figure, figure.add_subplot(grid[0, 1]), report["preference"], "Prompt preference",
              "share of mask attention on the prompt", "{:.2f}", most=1)
    _positions(figure, figure.add_subplot(grid[1, :]), report)
    return figure


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.plot_kept", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kept", type=pathlib.Path, help="output of maskkv inspect --json")
    parser.add_argument("picture", type=pathlib.Path, help="PNG file to write")
    args = parser.parse_args(argv)
    try:
        report = json.loads(args.kept.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        parser.error(f"{args.kept}: expected the output of maskkv inspect --json, found {error}")
    figure = draw(report)
    figure.savefig(args.picture, dpi=110, format="png")
    plt.close(figure)


if __name__ == "__main__":
    main()
