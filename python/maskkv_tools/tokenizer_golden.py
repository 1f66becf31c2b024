# SPDX-License-Identifier: Apache-2.0
"""Golden tokenizers: small byte-level BPE tokenizers and what the `tokenizers` package makes of texts.

Writes, for each kind of tokenizer, OUT/KIND/tokenizer.json and OUT/KIND/cases.jsonl with one
object a line: the text, its ids with special tokens parsed, the same with them as plain text (where
that differs), and the decoded text (where that differs from the text).

    PYTHONPATH=python python3 -m maskkv_tools.tokenizer_golden --out tests/data/tokenizer

The pre-tokenisers are those of published checkpoints:
  llada  LLaDA: single digits, possessive repetition
  qwen2  Qwen2 and Dream: NFC first
  gpt2   GPT-2's own expression inside ByteLevel, digits cut first, words looked up whole
"""

import argparse
import json
import pathlib
import random

from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers,
                        trainers)

from maskkv_tools import unusual_texts

SEED = 20260101
VOCABULARY = 1400
RANDOM_CASES = 250
LLADA_PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
    r"\s*[\r\n]|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(use_regex=False):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


def _pre_tokenizer(kind):
    if kind == "llada":
        first = pre_tokenizers.Split(Regex(LLADA_PATTERN), "isolated", invert=False)
    elif kind == "qwen2":
        first = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated", invert=False)
    else:
        first = pre_tokenizers.Digits(individual_digits=True)
    return pre_tokenizers.Sequence([first, _byte_level(use_regex=kind == "gpt2")])


def _special(text):
    return AddedToken(text, special=True, normalized=False)


# What is found in a text before it is cut. `<tool>` is no special token, `café!` is compared with the
# normalised text.
ADDED = {
    "llada": [_special(t) for t in ("<|startoftext|>", "<|endoftext|>", "<|start_header_id|>",
                                    "<|end_header_id|>", "<|eot_id|>", "<|mdm_mask|>")],
    "qwen2": [*(_special(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|mask|>")),
              AddedToken("<tool>", special=False, normalized=False),
              AddedToken("café!", special=False, normalized=True)],
    "gpt2": [_special("<|endoftext|>"), AddedToken("<tool>", special=False, normalized=True)],
}
KINDS = tuple(ADDED)


def train(kind):
    """A tokenizer whose merges come from the very texts that are hard to cut."""
    rng = random.Random(SEED)
    corpus = unusual_texts.fixed() + [unusual_texts.random_text(rng) for _ in range(2000)]
    tokenizer = Tokenizer(models.BPE(ignore_merges=kind == "gpt2"))
    tokenizer.pre_tokenizer = _pre_tokenizer(kind)
    tokenizer.decoder = decoders.ByteLevel()
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, min_frequency=2, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_tokens(ADDED[kind])
    return tokenizer


def encode(tokenizer, text, plain):
    """The ids of a text; `plain` takes the text of special tokens as ordinary characters."""
    tokenizer.encode_special_tokens = plain
    return tokenizer.encode(text, add_special_tokens=False).ids


def case(tokenizer, text):
    parsed, plain = (encode(tokenizer, text, flag) for flag in (False, True))
    decoded = tokenizer.decode(parsed, skip_special_tokens=False)
    entry = {"text": text, "ids": parsed}
    if plain != parsed:
        entry["plain"] = plain
    if decoded != text:
        entry["decoded"] = decoded
    return entry


def files(kind):
    """Relative path -> content of the golden files of one kind."""
    tokenizer = train(kind)
    rng = random.Random(SEED + 1)
    texts = unusual_texts.fixed() + [unusual_texts.random_text(rng) for _ in range(RANDOM_CASES)]
    lines = [json.dumps(case(tokenizer, text)) for text in dict.fromkeys(texts)]
    return {f"{kind}/tokenizer.json": tokenizer.to_str() + "\n",
            f"{kind}/cases.jsonl": "\n".join(lines) + "\n"}


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tools.tokenizer_golden",
                                     description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("tests/data/tokenizer"))
    args = parser.parse_args()
    for kind in KINDS:
        for path, content in files(kind).items():
            target = args.out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(content, encoding="utf-8")
            print(f"{target}: {len(content)} characters")


if __name__ == "__main__":
    main()
