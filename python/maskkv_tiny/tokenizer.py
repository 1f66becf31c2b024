# SPDX-License-Identifier: Apache-2.0
"""Trains the tokenizer of the tiny model and writes it as a published LLaDA checkpoint has it.

Byte-level BPE: 256 byte symbols and the merges that make every word of the tiny world one token.
The pre-tokeniser splits text by LLaDA's regular expression (words with one leading character,
digits one by one, punctuation with the line breaks after it), then maps bytes to letters.

    python -m maskkv_tiny.tokenizer --out models/tiny-llada
"""

import argparse
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from maskkv_tiny import words, world

BOS, EOS, EOT, MASK = "<|startoftext|>", "<|endoftext|>", "<|eot_id|>", "<|mdm_mask|>"
HEADER_START, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
SPECIAL = (BOS, EOS, HEADER_START, HEADER_END, EOT, MASK)
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|"
    r"\s*[\r\n]|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
)
LARGEST_VOCABULARY = 4000  # far more merges than the corpus has: training stops when all are made


def render(messages):
    """The chat template's text, assistant header included; what the Jinja source above says."""
    text = BOS
    for role, content in messages:
        text += f"{HEADER_START}{role}{HEADER_END}\n\n{content.strip()}{EOT}"
    return text + f"{HEADER_START}assistant{HEADER_END}\n\n"


def corpus():
    """Every text whose pre-tokens must become single tokens, values and names above all."""
    names = [w for key in dir(words) if key.isupper() for w in getattr(words, key)]
    statements = [r.statement for r in (*world.ATTRIBUTES, *world.RELATIONS)]
    asks = [f"{a} the {b}" for r in (*world.ATTRIBUTES, *world.RELATIONS) for a, b in [r.asks]]
    roles = [f"the {r.role} of" for r in world.RELATIONS]
    texts = [" " + " ".join((*names, *statements, *roles, "The")), ".\n\n", "\n\n"]
    texts += [world.OPENING, *asks, "user", "assistant", "system", "Notes: The"]
    return texts


def train():
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated", invert=False)
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LARGEST_VOCABULARY,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def config(tokenizer):
    added = {
        str(tokenizer.token_to_id(token)): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token in SPECIAL
    }
    return {
        "add_bos_token": False,
        "add_eos_token": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [HEADER_START, HEADER_END, EOT, MASK],
        "bos_token": BOS,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "cls_token": "[CLS]",
        "eos_token": EOS,
        "fast_tokenizer": True,
        "gmask_token": "[gMASK]",
        "merges_file": None,
        "model_max_length": 1000000000000000019884624838656,
        "pad_token": EOS,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "trust_remote_code": True,
    }


def write(tokenizer, out):
    """tokenizer.json and tokenizer_config.json into the folder `out`."""
    tokenizer.save(str(out / "tokenizer.json"))
    text = json.dumps(config(tokenizer), indent=2)
    (out / "tokenizer_config.json").write_text(text + "\n", encoding="utf-8")


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.tokenizer", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/tiny-llada"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train()
    write(tokenizer, args.out)
    print(f"{tokenizer.get_vocab_size()} tokens written to {args.out}")


if __name__ == "__main__":
    main()
