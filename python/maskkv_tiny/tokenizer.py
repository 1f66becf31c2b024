# SPDX-License-Identifier: Apache-2.0
"""Trains the tokenizer of a tiny model and writes it as the family's published checkpoints have it.

Byte-level BPE: 256 byte symbols and the merges that make every word of the tiny world one token.
The pre-tokeniser splits text by the family's regular expression (words with one leading character,
digits one by one, punctuation with the line breaks after it), then maps bytes to letters.

    python -m maskkv_tiny.tokenizer --family llada --out models/tiny-llada
"""

import argparse
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from maskkv_tiny import families, words, world

LARGEST_VOCABULARY = 4000  # far more merges than the corpus has: training stops when all are made


def corpus(family):
    """Every text whose pre-tokens must become single tokens, values and names above all."""
    names = [w for key in dir(words) if key.isupper() for w in getattr(words, key)]
    statements = [r.statement for r in (*world.ATTRIBUTES, *world.RELATIONS)]
    asks = [f"{a} the {b}" for r in (*world.ATTRIBUTES, *world.RELATIONS) for a, b in [r.asks]]
    roles = [f"the {r.role} of" for r in world.RELATIONS]
    texts = [" " + " ".join((*names, *statements, *roles, "The")), ".\n\n", "\n\n"]
    texts += [world.OPENING, *asks, *family.template_words, "Notes: The"]
    return texts


def train(family):
    tokenizer = Tokenizer(models.BPE())
    if family.nfc:
        tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(family.pattern), "isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(family), trainer)
    tokenizer.add_special_tokens(list(family.special))
    return tokenizer


def special_ids(family, tokenizer):
    """{special token: id}"""
    return {token: tokenizer.token_to_id(token) for token in family.special}


def write(family, tokenizer, out):
    """tokenizer.json and tokenizer_config.json into the folder `out`."""
    tokenizer.save(str(out / "tokenizer.json"))
    text = json.dumps(family.tokenizer_config(special_ids(family, tokenizer)), indent=2)
    (out / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.tokenizer", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    families.add_arguments(parser)
    args = parser.parse_args()
    family = families.by_name()[args.family]
    out = families.checkpoint_folder(args)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train(family)
    write(family, tokenizer, out)
    print(f"{tokenizer.get_vocab_size()} tokens written to {out}")


if __name__ == "__main__":
    main()
