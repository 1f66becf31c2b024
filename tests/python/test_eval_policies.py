# SPDX-License-Identifier: Apache-2.0
"""Names of policies against docs/policies.md, and what answers may have kept under them."""

import re
from pathlib import Path

import pytest

from maskkv import Kept
from maskkv_eval import policies

PAGE = (Path(__file__).resolve().parents[2] / "docs/policies.md").read_text()


def section(title):
    return PAGE.split(f"## {title}\n")[1].split("\n## ")[0]


def names_in_rows(title):
    rows = [line for line in section(title).splitlines() if line.startswith("| `")]
    return tuple(name for row in rows for name in re.findall(r"`([\w-]+)`", row.split("|")[1]))


def test_the_names_are_those_of_the_page():
    named = {}
    for row in section("Names").splitlines():
        if not row.startswith("| `"):
            continue
        left, right = (part.strip() for part in row.strip("|").split("|"))
        first, *others = re.findall(r"`([\w-]+)`", left)
        stem = first.rpartition("-")[0]
        for name in (first, *(stem + other for other in others)):
            quarter = name.rpartition("-")[2]
            named[name] = "/".join(p.strip() for p in right.replace("...", quarter).split("/"))
    assert len(named) >= 18 and named.items() <= policies.NAMED.items()


@pytest.mark.parametrize("title, parts", [
    ("Voters", policies.VOTERS), ("Layers", policies.LAYERS), ("Heads", policies.HEADS)])
def test_the_parts_are_those_of_the_page(title, parts):
    assert set(names_in_rows(title)) <= set(parts)


def test_every_named_policy_is_a_triple_of_known_parts():
    for triple in policies.NAMED.values():
        voters, layers, heads = triple.split("/")
        assert voters in policies.VOTERS and layers in policies.LAYERS and heads in policies.HEADS


def test_names():
    for name in ("maskkv", "none", "plan", "masks/pyramid/uniform"):
        policies.check_name(name)
    for name in ("snapkw", "masks/pyramid", "masks//uniform", ""):
        with pytest.raises(SystemExit, match="--policies: expected none, plan, "):
            policies.check_name(name)
    assert policies.has_budget("maskkv") and policies.has_budget("plan")
    for name in ("none", "full", "full/uniform/uniform"):
        assert not policies.has_budget(name)


def kept(*layers, candidates=100):
    """Pairs of each head, a tuple a layer."""
    heads = tuple(n for layer in layers for n in layer)
    return Kept(sum(heads), candidates * len(heads), tuple(map(sum, layers)), heads, 0.5)


@pytest.mark.parametrize("name, budget, pairs", [
    ("snapkv", 8, kept((8, 8), (8, 8))),
    ("maskkv", 8, kept((2, 9), (20, 1))),
    ("plan", 8, kept((2, 9), (20, 1))),
    ("pyramidkv", 8, kept((12, 12), (4, 4))),
    ("adakv", 8, kept((2, 14), (16, 0))),
    ("squeeze", 8, kept((4, 4), (12, 12))),
    ("maskkv-no-layers", 8, kept((2, 14), (8, 8))),
    ("maskkv-no-heads", 8, kept((2, 2), (14, 14))),
    ("maskkv-pool", 8, kept((0, 20), (12, 0))),
    ("full", None, kept((100, 100), (100, 100))),
    ("full", None, kept((99, 99), (99, 99))),  # the last token is no candidate
    ("snapkv", 200, kept((100, 100), (100, 100))),
    ("snapkv", 200, kept((99, 99), (99, 99))),
    ("pyramidkv", 100, kept((100, 100), (100, 100))),
    ("none", None, None),
])
def test_what_fits(name, budget, pairs):
    assert policies.complaint(name, budget, pairs, 2, 2) is None


@pytest.mark.parametrize("name, budget, pairs, complaint", [
    ("snapkv", 8, kept((8, 8), (8, 9)), "expected 32 pairs, found 33"),
    ("snapkv", 8, kept((9, 9), (7, 7)), "same number of pairs in every layer, found [18, 14]"),
    ("snapkv", 8, kept((7, 9), (8, 8)), "in every head, found [7, 9] in layer 0"),
    ("maskkv-no-heads", 8, kept((4, 4), (11, 13)), "in every head, found [11, 13] in layer 1"),
    ("adakv", 8, kept((9, 9), (7, 7)), "same number of pairs in every layer"),
    ("pyramidkv", 8, kept((4, 4), (12, 12)), "fewer pairs from layer to layer, found [8, 24]"),
    ("pyramidkv", 8, kept((8, 8), (8, 8)), "fewer pairs from layer to layer, found [16, 16]"),
    ("full", None, kept((8, 8), (8, 8)), "expected 396 or 400 pairs, found 32"),
    ("none", None, kept((8, 8), (8, 8)), "expected no compressed cache, found one"),
    ("maskkv", 8, None, "expected a compressed cache, found none"),
    ("maskkv", 8, kept((8, 8)), "expected pairs of 2 layers and 4 heads, found 1 and 2"),
])
def test_what_does_not_fit(name, budget, pairs, complaint):
    assert complaint in policies.complaint(name, budget, pairs, 2, 2)
