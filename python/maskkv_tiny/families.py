# SPDX-License-Identifier: Apache-2.0
"""What differs between the model families that the trainer makes: facts of published checkpoints.

A family names the network's shape, the tokenizer's parts, the chat template and the files of its
checkpoints. All else (world, batches, initial weights, training) is one path for all families.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Shape:
    vocab_size: int
    d_model: int = 256
    n_layers: int = 5
    n_heads: int = 4
    mlp_hidden_size: int = 512
    rope_theta: float = 500000.0
    rms_norm_eps: float = 1e-5
    n_kv_heads: int = 4  # each serves n_heads / n_kv_heads query heads in a row
    qkv_bias: bool = False
    shift: int = 0  # the prediction for position i is the head's output at row i - shift

    @property
    def head_dim(self):
        return self.d_model // self.n_heads


@dataclasses.dataclass(frozen=True)
class Family:
    name: str
    shape: Shape  # vocab_size 0: the tokenizer says
    special: tuple  # special tokens in the order of their ids
    eos: str  # also the fill after an answer
    end_of_turn: str
    mask: str
    pattern: str  # by which the pre-tokeniser cuts
    nfc: bool  # whether texts are normalised to Unicode's form C first
    template_words: tuple  # texts of the chat template that become single tokens
    render: Callable  # [(role, text)] -> the chat template's text, assistant header included
    tokenizer_config: Callable  # {special token: id} -> tokenizer_config.json
    config: Callable  # (shape, {special token: id}) -> config.json
    shape_fields: Mapping  # field of Shape -> field of config.json
    tensor_names: tuple  # (module name here, tensor name there), replaced in this order

    def tensor_name(self, module_name):
        """The checkpoint's name of the network's parameter `module_name`."""
        for here, there in self.tensor_names:
            module_name = module_name.replace(here, there)
        return module_name


def added_tokens(ids):
    """added_tokens_decoder of tokenizer_config.json for {special token: id}."""
    settings = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                "special": True}
    return {str(token_id): {"content": token, **settings} for token, token_id in ids.items()}


def by_name():
    """{name: Family} of all families."""
    from maskkv_tiny import dream, llada  # they import this module

    return {family.name: family for family in (llada.FAMILY, dream.FAMILY)}


def of_config(fields):
    """The family of a checkpoint whose config.json holds `fields`."""
    kind = fields["model_type"].lower()
    if kind not in by_name():
        raise ValueError(f"config.json: model_type: expected one of {', '.join(by_name())}, "
                         f"found {kind!r}")
    return by_name()[kind]


def add_arguments(parser):
    """--family, and --out for the folder of its checkpoint: None unless given."""
    parser.add_argument("--family", choices=tuple(by_name()), default="llada")
    parser.add_argument("--out", type=pathlib.Path, help="default models/tiny-FAMILY")


def checkpoint_folder(args):
    return args.out or pathlib.Path("models") / f"tiny-{args.family}"
