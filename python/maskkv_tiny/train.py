# SPDX-License-Identifier: Apache-2.0
"""Trains the tiny model from nothing to a checkpoint; resumes where it stopped.

    python -m maskkv_tiny.train --family llada --work build/tiny-train

A curriculum of stages; each ends when its accuracy on people of the calibration split reaches the
stage's goal, or at its step limit. The state after every 100 steps is in --work; running the
command again goes on from there. At the end, --out gets the checkpoint in the family's published format.

Arithmetic is bfloat16 (autocast, compiled) where the CPU has a unit for it and plain float32
elsewhere, where bfloat16 is emulated and thirty times slower, and compiling gains nothing.
"""

import argparse
import pathlib
import time
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from maskkv_tiny import batches, families
from maskkv_tiny import tokenizer as tok
from maskkv_tiny.export import export
from maskkv_tiny.initial import initialise
from maskkv_tiny.model import Network
from maskkv_tiny.muon import Muon


@dataclass(frozen=True)
class Stage:
    name: str
    length: int  # tokens a document
    batch: int
    steps: int  # limit
    shortest: int = 0  # when set, lengths are drawn from [shortest, length]
    questions: int = 8  # a document, in layout "segments"
    people: int | None = None  # a document; None: as many as its length holds
    most_people: int = 12
    two_hop_share: float = 0.5
    layout: str = "segments"
    answer_lengths: tuple = (4,)
    whole_share: float = 0.7
    goal: tuple = (1.1, 1.1)  # accuracy by kind that ends the stage
    muon_lr: float = 0.005
    embed_lr: float = 0.01
    decay: bool = False  # learning rates fall linearly to a tenth over the stage


STAGES = (
    Stage("short", 128, 32, 400, people=3, questions=10, goal=(0.97, 0.96)),
    Stage("medium", 256, 16, 100, people=6, questions=12),
    Stage("long", 1000, 4, 100, questions=16, muon_lr=0.003, embed_lr=0.005),
    Stage("anneal", 1000, 4, 160, questions=14, answer_lengths=(8,), muon_lr=0.003,
          embed_lr=0.003, decay=True),
    Stage("chat", 1200, 4, 100, shortest=200, layout="chat", answer_lengths=(4, 8, 8, 16, 32),
          whole_share=0.6, muon_lr=0.0005, embed_lr=0.0005, decay=True),
)
# After those: documents of up to 2,400 tokens with up to 24 people, for harder measurements.
FAR_STAGES = (
    Stage("far", 2400, 2, 100, questions=24, most_people=24, answer_lengths=(8,), muon_lr=0.002,
          embed_lr=0.002, decay=True),
    Stage("far-chat", 2400, 4, 100, shortest=200, most_people=24, layout="chat",
          answer_lengths=(4, 8, 8, 16, 32), whole_share=0.6, muon_lr=0.0005, embed_lr=0.0005,
          decay=True),
)
EVALUATED_EVERY = 100
BIAS_SHARE = 0.1  # of the embeddings' learning rate


def has_bfloat16_unit():
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def attention_bias(segment, seeker, dtype):
    """(B, 1, n, n): 0 where row i may see column j, a large negative number elsewhere."""
    own = segment[:, :, None] == segment[:, None, :]
    document = seeker[:, :, None] & (segment[:, None, :] == 0)
    return torch.where(own | document, 0.0, -30000.0).to(dtype)[:, None]


def forward(model, rows, dtype):
    """Logits, targets, weights and kinds of the predicted positions of a batch."""
    tensors = [torch.from_numpy(a) for a in
               (rows.ids, rows.positions, rows.segment, rows.seeker, rows.targets)]
    ids, positions, segment, seeker, targets = tensors
    picked = (targets.flatten() != batches.IGNORED).nonzero().squeeze(1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        logits = model(ids, positions, attention_bias(segment, seeker, dtype), picked)
    flat = [torch.from_numpy(a).flatten()[picked] for a in (rows.targets, rows.weights, rows.kind)]
    return logits.float(), *flat


def accuracy(logits, targets, kinds):
    """Per kind: (right first answer tokens, asked), where the whole answer was masked."""
    right = logits.argmax(-1) == targets
    return [(right[kinds == k].sum().item(), (kinds == k).sum().item())
            for k in range(len(batches.KINDS))]


class Trainer:
    def __init__(self, work, seed, family):
        self.work, self.seed = work, seed
        work.mkdir(parents=True, exist_ok=True)
        self.tokenizer = tok.train(family)
        self.encoder = batches.Encoder(family, self.tokenizer)
        shape = replace(family.shape, vocab_size=self.tokenizer.get_vocab_size())
        self.model = Network(shape)
        initialise(self.model, seed, family, self.tokenizer)
        self.dtype = torch.bfloat16 if has_bfloat16_unit() else torch.float32
        self.run = torch.compile(self.model) if self.dtype == torch.bfloat16 else self.model
        matrices, biases, others = [], [], []
        for name, p in self.model.named_parameters():
            matrix = "blocks" in name and p.dim() == 2
            (matrices if matrix else biases if name.endswith("bias") else others).append(p)
        self.muon = Muon(matrices, lr=0.005)
        groups = [{"params": others, "share": 1.0}]
        if biases:
            groups.append({"params": biases, "share": BIAS_SHARE})
        self.adam = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.98), weight_decay=0.0)
        self.progress = {"stage": 0, "step": 0, "seconds": 0.0}
        self.state_file = work / "state.pt"
        if self.state_file.exists():
            self._load()

    def _load(self):
        state = torch.load(self.state_file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])
        self.progress = state["progress"]

    def save(self):
        partial = self.state_file.with_suffix(".partial")
        torch.save({"model": self.model.state_dict(), "muon": self.muon.state_dict(),
                    "adam": self.adam.state_dict(), "progress": self.progress}, partial)
        partial.replace(self.state_file)

    def _set_rates(self, stage, step):
        warm = min(1.0, (step + 1) / 50)
        scale = warm * (1.0 - 0.9 * step / stage.steps if stage.decay else 1.0)
        self.muon.param_groups[0]["lr"] = stage.muon_lr * scale
        for group in self.adam.param_groups:
            group["lr"] = stage.embed_lr * group["share"] * scale

    def _model_for(self, stage):
        """The compiled model where shapes stay the same; compiling for every length costs more."""
        return self.run if stage.layout == "segments" else self.model

    def step(self, stage, step):
        self._set_rates(stage, step)
        rows = batches.build(self.encoder, stage, "train", f"{self.seed}/{stage.name}/{step}")
        logits, targets, weights, kinds = forward(self._model_for(stage), rows, self.dtype)
        loss = F.cross_entropy(logits, targets, reduction="none")
        loss = (loss * weights).sum() / weights.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in (self.muon, self.adam):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return loss.item(), accuracy(logits, targets, kinds)

    @torch.no_grad()
    def evaluate(self, stage, rounds=4):
        """Accuracy by kind on documents about people of the calibration split."""
        stage = replace(stage, whole_share=1.0)
        totals = np.zeros((len(batches.KINDS), 2))
        for i in range(rounds):
            seed = f"{self.seed}/{stage.name}/{i}"
            rows = batches.build(self.encoder, stage, "calibration", seed)
            logits, targets, _, kinds = forward(self._model_for(stage), rows, self.dtype)
            totals += accuracy(logits, targets, kinds)
        return [right / max(asked, 1) for right, asked in totals]

    def train(self, stages):
        print(f"{torch.cpu.get_capabilities().get('cpu_name')}, {torch.get_num_threads()} threads,"
              f" PyTorch {torch.__version__}, {self.dtype}", flush=True)
        self.ticked = time.monotonic()
        while self.progress["stage"] < len(stages):
            stage = stages[self.progress["stage"]]
            self._train_stage(stage)
            print(f"{stage.name} done after {self._seconds():.0f} s", flush=True)
            self.progress = {**self.progress, "stage": self.progress["stage"] + 1, "step": 0}
            self.save()

    def _seconds(self):
        """Seconds of training so far, earlier runs of the command included."""
        before, self.ticked = self.ticked, time.monotonic()
        self.progress["seconds"] += self.ticked - before
        return self.progress["seconds"]

    def _train_stage(self, stage):
        window = []
        while self.progress["step"] < stage.steps:
            step = self.progress["step"]
            window.append(self.step(stage, step))
            self.progress["step"] = step + 1
            if (step + 1) % 20 == 0:
                counts = np.sum([w[1] for w in window], axis=0)
                rates = " ".join(f"{k} {r / max(a, 1):.3f}"
                                 for k, (r, a) in zip(batches.KINDS, counts))
                print(f"{stage.name} {step + 1} loss {np.mean([w[0] for w in window]):.3f} {rates}"
                      f" {self._seconds():.0f} s", flush=True)
                window = []
            if (step + 1) % EVALUATED_EVERY == 0:
                held_out = self.evaluate(stage)
                print(f"{stage.name} {step + 1} held out "
                      + " ".join(f"{k} {a:.3f}" for k, a in zip(batches.KINDS, held_out)),
                      flush=True)
                self.save()
                if all(a >= g for a, g in zip(held_out, stage.goal)):
                    return


def main():
    parser = argparse.ArgumentParser(prog="python -m maskkv_tiny.train", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=pathlib.Path("build/tiny-train"))
    families.add_arguments(parser)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--far", action="store_true",
                        help="train further on longer documents about more people")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    family = families.by_name()[args.family]
    Trainer(args.work, args.seed, family).train(STAGES + (FAR_STAGES if args.far else ()))
    export(family, args.work, families.checkpoint_folder(args))


if __name__ == "__main__":
    main()
