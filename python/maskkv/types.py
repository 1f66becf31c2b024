# SPDX-License-Identifier: Apache-2.0
"""Answers of the services as plain, immutable values. Fields are those of protos/maskkv/v1, which
say what each means; handles stay the opaque messages that the server gave."""

from dataclasses import dataclass, fields
from typing import Any, Union

from maskkv.v1 import common_pb2, decode_pb2

_FINISH_REASONS = {
    decode_pb2.FINISH_REASON_STOP: "stop",
    decode_pb2.FINISH_REASON_LENGTH: "length",
    decode_pb2.FINISH_REASON_STOP_STRING: "stop_string",
}
_KV_DTYPES = {
    common_pb2.KV_DTYPE_F32: "f32",
    common_pb2.KV_DTYPE_BF16: "bf16",
    common_pb2.KV_DTYPE_INT8: "int8",
}


def _convert(cls, message, **more):
    """A `cls` of the message's fields of the same names; `more` gives those that differ."""
    values = {f.name: getattr(message, f.name) for f in fields(cls) if f.name not in more}
    for name, value in values.items():
        if hasattr(value, "extend"):  # a repeated field of numbers or strings
            values[name] = tuple(value)
    return cls(**values, **more)


@dataclass(frozen=True)
class Kept:
    """Pairs that a prefill kept of a prompt."""

    pairs: int
    considered: int
    per_layer: tuple[int, ...]
    per_head: tuple[int, ...]
    mass: float


@dataclass(frozen=True)
class Provenance:
    model_fingerprint: str
    plan_generation: int
    entry_digest: str
    dtype: str
    isa: str
    build: str


@dataclass(frozen=True)
class Timings:
    """Milliseconds."""

    queue_ms: float
    prefill_ms: float
    map_ms: float
    first_token_ms: float
    decode_ms: float
    total_ms: float
    refresh_ms: float


@dataclass(frozen=True)
class Usage:
    prompt_tokens: int
    answer_tokens: int
    steps: int
    rows: int
    kept_pairs: int
    entry_bytes: int
    full_bytes: int
    refreshes: int
    response_cache_bytes: int
    reused_rows: int  # that steps took over from earlier ones; rows are the others
    canvas_length: int  # in the end: gen_length, more if it grew


@dataclass(frozen=True)
class Token:
    position: int
    id: int
    confidence: float
    log_probability: float


@dataclass(frozen=True)
class Started:
    seq: int
    request_id: str
    prompt_tokens: int
    handle: Any  # v1.Handle, None without a compressed cache
    kept: Kept | None
    provenance: Provenance
    rope_scale: float  # what RoPE's base was multiplied by; 1 without scaling


@dataclass(frozen=True)
class Refreshed:
    """The prompt was prefilled again with the answer so far."""

    handle: Any  # v1.Handle
    kept: Kept
    entry_bytes: int
    entry_digest: str
    cached: bool
    wait_ms: float


@dataclass(frozen=True)
class Step:
    seq: int
    sample: int
    step: int
    committed: tuple[Token, ...]
    provisional: tuple[Token, ...]
    text: str
    refreshed: Refreshed | None  # the entry that this step was the first to run over
    grown: int  # masks that the canvas grew by after it
    kept_mass: float | None  # with refresh_floor: share of attention to kept pairs


@dataclass(frozen=True)
class Span:
    """What a run of masks became; position: of its first token, in the canvas."""

    position: int
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Finished:
    seq: int
    sample: int
    finish_reason: str  # "stop", "length", "stop_string"
    tokens: tuple[int, ...]
    text: str
    usage: Usage
    timings: Timings
    spans: tuple[Span, ...]  # of answers that fill in


Event = Union[Started, Step, Finished]


@dataclass(frozen=True)
class Answer:
    """A whole stream: what started it, every step, and the end of each sample."""

    started: Started
    steps: tuple[Step, ...]
    samples: tuple[Finished, ...]

    @property
    def text(self):
        return self.samples[0].text

    @property
    def tokens(self):
        return self.samples[0].tokens

    @property
    def spans(self):
        return self.samples[0].spans

    @property
    def handle(self):
        return self.started.handle

    @property
    def tokens_per_step(self):
        """Positions decided a step, in the mean over the steps of all samples."""
        return sum(len(step.committed) for step in self.steps) / max(1, len(self.steps))


@dataclass(frozen=True)
class Prefilled:
    handle: Any
    prompt_tokens: int
    masks: int
    kept: Kept
    entry_bytes: int
    full_bytes: int
    cached: bool
    budget: int
    document_tokens: int
    provenance: Provenance
    rope_scale: float
    kv_dtype: str  # "" from a server that does not say


@dataclass(frozen=True)
class HeadExplanation:
    layer: int
    head: int
    preference: float
    positions: tuple[int, ...]
    kept_mass: float
    prompt_mass: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Explanation:
    prompt_tokens: int
    masks: int
    kept: Kept
    heads: tuple[HeadExplanation, ...]
    provenance: Provenance
    rope_scale: float


@dataclass(frozen=True)
class ModelInfo:
    model_name: str
    model_fingerprint: str
    family: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    mask_id: int
    stop_ids: tuple[int, ...]
    max_positions: int
    dtype: str
    pair_bytes: int
    has_tokenizer: bool
    layout: str
    kv_dtype: str  # of kept pairs where a request says nothing; "" from a server that does not say


@dataclass(frozen=True)
class CacheStat:
    epoch: int
    capacity_bytes: int
    allocated_bytes: int
    leased_bytes: int
    pending_bytes: int
    reserved_entries: int
    sealed_entries: int
    pending_entries: int
    leases: int
    sessions: int
    layout: str


@dataclass(frozen=True)
class Plan:
    generation: int
    model_fingerprint: str
    budget: int | None  # None under a coverage target
    coverage: float | None  # None under a budget
    max_budget: int
    alpha: float
    beta: float
    layer_weights: tuple[float, ...]
    importance: tuple[float, ...]
    head_rates: tuple[float, ...]
    cause: str


@dataclass(frozen=True)
class Policy:
    """What operators decide; budget or coverage, the other is None."""

    budget: int | None = None
    coverage: float | None = None
    min_budget: int = 16
    max_budget: int = 512
    alpha: float = 0.1
    beta: float = 0.4
    adapt_budget: bool = True
    adapt_shares: bool = True
    target_mass: float = 0.9


def kept(message):
    return _convert(Kept, message)


def _amount(message):
    chosen = message.WhichOneof("amount")
    return {name: getattr(message, name) if chosen == name else None
            for name in ("budget", "coverage")}


def plan(message):
    return _convert(Plan, message, **_amount(message))


def policy(message):
    return _convert(Policy, message, **_amount(message))


def prefilled(message):
    return _convert(Prefilled, message, kept=kept(message.kept),
                    kv_dtype=_KV_DTYPES.get(message.kv_dtype, ""),
                    provenance=_convert(Provenance, message.provenance))


def explanation(message):
    heads = tuple(_convert(HeadExplanation, head) for head in message.heads)
    return _convert(Explanation, message, kept=kept(message.kept), heads=heads,
                    provenance=_convert(Provenance, message.provenance))


def model_info(message):
    return _convert(ModelInfo, message, kv_dtype=_KV_DTYPES.get(message.kv_dtype, ""))


def cache_stat(message):
    return _convert(CacheStat, message)


def _tokens(messages):
    return tuple(_convert(Token, token) for token in messages)


def event(message):
    """The Started, Step or Finished of a v1.GenerateEvent."""
    kind = message.WhichOneof("event")
    inner = getattr(message, kind)
    if kind == "started":
        return _convert(Started, inner, seq=message.seq,
                        handle=inner.handle if inner.HasField("handle") else None,
                        kept=kept(inner.kept) if inner.HasField("kept") else None,
                        provenance=_convert(Provenance, inner.provenance))
    if kind == "step":
        refreshed = None
        if inner.HasField("refreshed"):
            refreshed = _convert(Refreshed, inner.refreshed, kept=kept(inner.refreshed.kept))
        return _convert(Step, inner, seq=message.seq, committed=_tokens(inner.committed),
                        provisional=_tokens(inner.provisional), refreshed=refreshed,
                        kept_mass=inner.kept_mass if inner.HasField("kept_mass") else None)
    return _convert(Finished, inner, seq=message.seq,
                    finish_reason=_FINISH_REASONS[inner.finish_reason],
                    usage=_convert(Usage, inner.usage), timings=_convert(Timings, inner.timings),
                    spans=tuple(_convert(Span, span) for span in inner.spans))


class AnswerBuilder:
    """Collects the events of one stream and checks their order."""

    def __init__(self):
        self._started, self._steps, self._samples, self._next = None, [], [], 0

    def add(self, item):
        if item.seq != self._next:
            raise ValueError(f"event: expected seq {self._next}, found {item.seq}")
        self._next += 1
        if isinstance(item, Started):
            self._started = item
        elif isinstance(item, Step):
            self._steps.append(item)
        else:
            self._samples.append(item)

    def build(self):
        return Answer(self._started, tuple(self._steps),
                      tuple(sorted(self._samples, key=lambda sample: sample.sample)))
