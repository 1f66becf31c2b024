# SPDX-License-Identifier: Apache-2.0
"""Names of eviction policies (docs/policies.md), and what each must look like in an answer."""

# Asked for without a policy's name: no cache at all, and what the service's own plan says.
NONE, PLAN = "none", "plan"

VOTERS = ("masks", "masks-front", "masks-second", "masks-third", "masks-back", "prompt", "all",
          "window", "recent", "random", "full")
LAYERS = ("uniform", "offline", "online", "pyramid", "squeeze", "pool")
HEADS = ("uniform", "preference", "adakv", "pool")
NAMED = {
    "maskkv": "masks/offline/preference",
    "maskkv-online": "masks/online/preference",
    "maskkv-no-layers": "masks/uniform/preference",
    "maskkv-no-heads": "masks/offline/uniform",
    "mask-voting": "masks/uniform/uniform",
    "maskkv-front": "masks-front/offline/preference",
    "maskkv-second": "masks-second/offline/preference",
    "maskkv-third": "masks-third/offline/preference",
    "maskkv-back": "masks-back/offline/preference",
    "maskkv-pool": "masks/pool/pool",
    "maskkv-head-pool": "masks/offline/pool",
    "prompt-voting": "prompt/uniform/uniform",
    "all-voting": "all/uniform/uniform",
    "snapkv": "window/uniform/uniform",
    "pyramidkv": "window/pyramid/uniform",
    "squeeze": "window/squeeze/uniform",
    "adakv": "window/uniform/adakv",
    "streaming": "recent/uniform/uniform",
    "random": "random/uniform/uniform",
    "full": "full/uniform/uniform",
}


def looks_like_a_triple(name):
    """Whether `name` is VOTERS/LAYERS/HEADS by form; a server may know parts that are not here."""
    parts = name.split("/")
    return len(parts) == 3 and all(parts)


def has_budget(name):
    """Whether the policy is asked for with a number of pairs."""
    return name != NONE and not NAMED.get(name, name).startswith("full/")


def check_name(name):
    if name not in NAMED and name not in (NONE, PLAN) and not looks_like_a_triple(name):
        raise SystemExit(f"--policies: expected {NONE}, {PLAN}, VOTERS/LAYERS/HEADS or one of "
                         f"{', '.join(NAMED)}, found {name!r}")


def complaint(name, budget, kept, layers, kv_heads):
    """Why what was kept cannot be what policy `name` keeps under `budget`; None if it can.

    kept: a maskkv.Kept, None where the answer had no compressed cache. Only what follows from the
    policy's definition without its scores is looked at.
    """
    if name == NONE:
        return None if kept is None else "expected no compressed cache, found one"
    if kept is None:
        return "expected a compressed cache, found none"
    cells = layers * kv_heads
    if len(kept.per_layer) != layers or len(kept.per_head) != cells:
        return (f"expected pairs of {layers} layers and {cells} heads, found "
                f"{len(kept.per_layer)} and {len(kept.per_head)}")
    # Models with shifted logits recompute the last prompt token: one candidate less.
    candidates = kept.considered // cells
    possible = (candidates, max(0, candidates - 1))
    if not has_budget(name):
        totals = {cells * n for n in possible}
    else:
        totals = {cells * min(budget, n) for n in possible}
    if kept.pairs not in totals:
        return (f"expected {' or '.join(map(str, sorted(totals)))} pairs, found {kept.pairs}")
    return None if name == PLAN else _shape_complaint(name, budget, kept, kv_heads, min(possible))


def _shape_complaint(name, budget, kept, kv_heads, candidates):
    _, layer_rule, head_rule = NAMED.get(name, name).split("/")
    if layer_rule == "uniform" and len(set(kept.per_layer)) != 1:
        return f"expected the same number of pairs in every layer, found {list(kept.per_layer)}"
    if layer_rule == "pyramid":
        falls = all(a >= b for a, b in zip(kept.per_layer, kept.per_layer[1:]))
        room = budget >= 4 and 2 * budget <= candidates and len(kept.per_layer) > 1
        if not falls or (room and kept.per_layer[0] == kept.per_layer[-1]):
            return f"expected fewer pairs from layer to layer, found {list(kept.per_layer)}"
    if head_rule == "uniform":
        for layer in range(len(kept.per_layer)):
            heads = kept.per_head[layer * kv_heads : (layer + 1) * kv_heads]
            if len(set(heads)) != 1:
                return (f"expected the same number of pairs in every head, found {list(heads)} "
                        f"in layer {layer}")
    return None
