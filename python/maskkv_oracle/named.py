# SPDX-License-Identifier: Apache-2.0
"""Eviction policies by name: triples of voters, layer rule and head rule."""

import dataclasses

from maskkv_oracle import head_rules, layer_rules, voters


@dataclasses.dataclass(frozen=True)
class Policy:
    voters: str
    layers: str
    heads: str

    def __post_init__(self):
        for what, found, expected in (
            ("voters", self.voters, voters.NAMES),
            ("layers", self.layers, layer_rules.NAMES),
            ("heads", self.heads, head_rules.NAMES),
        ):
            if found not in expected:
                raise ValueError(f"{what}: found {found}, expected one of {', '.join(expected)}")
        if self.voters in voters.WITHOUT_SCORES and self.heads != "uniform":
            raise ValueError(f"heads: found {self.heads}, expected uniform: nobody votes")
        if self.layers == "pool" and self.heads != "pool":
            raise ValueError(f"heads: found {self.heads}, expected pool as the layers'")
        if self.layers == "pool" and self.voters == "window":
            raise ValueError("layers: found pool, expected another: window forces pairs in each")

    def __str__(self):
        return f"{self.voters}/{self.layers}/{self.heads}"


POLICIES = {
    "maskkv": Policy("masks", "offline", "preference"),
    "maskkv-online": Policy("masks", "online", "preference"),
    "maskkv-no-layers": Policy("masks", "uniform", "preference"),
    "maskkv-no-heads": Policy("masks", "offline", "uniform"),
    "maskkv-pool": Policy("masks", "pool", "pool"),
    "maskkv-head-pool": Policy("masks", "offline", "pool"),
    "mask-voting": Policy("masks", "uniform", "uniform"),
    "maskkv-front": Policy("masks-front", "offline", "preference"),
    "maskkv-second": Policy("masks-second", "offline", "preference"),
    "maskkv-third": Policy("masks-third", "offline", "preference"),
    "maskkv-back": Policy("masks-back", "offline", "preference"),
    "prompt-voting": Policy("prompt", "uniform", "uniform"),
    "all-voting": Policy("all", "uniform", "uniform"),
    "snapkv": Policy("window", "uniform", "uniform"),
    "pyramidkv": Policy("window", "pyramid", "uniform"),
    "squeeze": Policy("window", "squeeze", "uniform"),
    "adakv": Policy("window", "uniform", "adakv"),
    "streaming": Policy("recent", "uniform", "uniform"),
    "random": Policy("random", "uniform", "uniform"),
    "full": Policy("full", "uniform", "uniform"),
}


def parse(text):
    """A name, or VOTERS/LAYERS/HEADS."""
    if text in POLICIES:
        return POLICIES[text]
    parts = text.split("/")
    if len(parts) != 3:
        raise ValueError(f"policy: found {text}, expected a name or VOTERS/LAYERS/HEADS")
    return Policy(*parts)
