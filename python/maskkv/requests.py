# SPDX-License-Identifier: Apache-2.0
"""Keyword arguments to request messages, shared by the blocking and the asyncio client.

A prompt is one of `messages` (pairs of role and text), `document` with an optional `question`,
`tokens` (ids), or `text` without a template; `suffix` (text or ids) is its rest after the answer.
What is kept is one of `budget` and `coverage`, or neither for the plan's default.
"""

import re

from maskkv.v1 import budget_pb2, common_pb2, decode_pb2, prefill_pb2

_SELECTIONS = {"maskkv": common_pb2.SELECTION_MASKKV, "full": common_pb2.SELECTION_FULL,
               "random": common_pb2.SELECTION_RANDOM}
_LAYER_RULES = {"plan": common_pb2.LAYER_RULE_PLAN, "offline": common_pb2.LAYER_RULE_OFFLINE,
                "online": common_pb2.LAYER_RULE_ONLINE, "uniform": common_pb2.LAYER_RULE_UNIFORM}
_KV_DTYPES = {"f32": common_pb2.KV_DTYPE_F32, "bf16": common_pb2.KV_DTYPE_BF16,
              "int8": common_pb2.KV_DTYPE_INT8}
_CONFIDENCE = {"rule": decode_pb2.CONFIDENCE_SOURCE_UNSPECIFIED,
               "raw": decode_pb2.CONFIDENCE_SOURCE_RAW,
               "filtered": decode_pb2.CONFIDENCE_SOURCE_FILTERED}
_REUSE = {"vote_again": decode_pb2.REUSE_VOTE_AGAIN, "kept": decode_pb2.REUSE_KEPT,
          "vote_over": decode_pb2.REUSE_VOTE_OVER}


def _choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, found {value!r}")
    return choices[value]


def prompt(suffix=None, **form):
    message = _prompt_before(**form)
    if isinstance(suffix, str):
        message.suffix.text = suffix
    elif suffix is not None:
        message.suffix.tokens.ids.extend(suffix)
    return message


def _prompt_before(messages=None, document=None, question="", tokens=None, document_tokens=0,
                   text=None):
    given = [name for name, value in (("messages", messages), ("document", document),
                                      ("tokens", tokens), ("text", text)) if value is not None]
    if len(given) != 1:
        raise ValueError("prompt: expected one of messages, document, tokens and text, found "
                         + (" and ".join(given) or "none"))
    if text is not None:
        return common_pb2.Prompt(text=text)
    if messages is not None:
        chat = [common_pb2.Message(role=role, content=content) for role, content in messages]
        return common_pb2.Prompt(chat=common_pb2.Chat(messages=chat))
    if document is not None:
        return common_pb2.Prompt(document=common_pb2.DocumentQuestion(document=document,
                                                                      question=question))
    return common_pb2.Prompt(tokens=common_pb2.TokenIds(ids=tokens,
                                                        document_tokens=document_tokens))


def canvas(value):
    """A Canvas, or None for none. value: a text in which [[8]] stands for 8 masks, or a list of
    numbers of masks, texts and lists of token ids.
    """
    if value is None:
        return None
    if isinstance(value, str):
        parts = re.split(r"\[\[([0-9]+)\]\]", value)  # texts and numbers in turn
        value = [int(part) if i % 2 else part for i, part in enumerate(parts) if i % 2 or part]
    message = common_pb2.Canvas()
    for piece in value:
        if isinstance(piece, int):
            message.pieces.add(masks=piece)
        elif isinstance(piece, str):
            message.pieces.add(text=piece)
        else:
            message.pieces.add(tokens=common_pb2.TokenIds(ids=piece))
    return message


def keep(selection=None, budget=None, coverage=None, max_budget=0, alpha=None, beta=None,
         layer_rule=None, random_seed=0, policy=None, kv_dtype=None):
    """A KeepPolicy, or None when everything is left to the plan.

    policy: a name of docs/policies.md or "VOTERS/LAYERS/HEADS"; then no selection, no layer_rule.
    kv_dtype: how pairs are stored, "f32", "bf16" or "int8"; None: as the server says.
    """
    if budget is not None and coverage is not None:
        raise ValueError("keep: expected budget or coverage, found both")
    if policy is not None and (selection is not None or layer_rule is not None):
        raise ValueError("keep: expected policy, or selection and layer_rule, found both")
    if policy == "":
        raise ValueError("keep: policy: expected a name, found an empty one")
    message = common_pb2.KeepPolicy(max_budget=max_budget, random_seed=random_seed,
                                    policy=policy or "")
    for name, value in (("budget", budget), ("coverage", coverage), ("alpha", alpha),
                        ("beta", beta)):
        if value is not None:
            setattr(message, name, value)
    if selection is not None:
        message.selection = _choice("selection", selection, _SELECTIONS)
    if layer_rule is not None:
        message.layer_rule = _choice("layer_rule", layer_rule, _LAYER_RULES)
    if kv_dtype is not None:
        message.kv_dtype = _choice("kv_dtype", kv_dtype, _KV_DTYPES)
    return message if message.ByteSize() else None


def rope_scaling(value):
    """A RopeScaling of None or "none" (no scaling), "longllada" or a factor, or None for none."""
    if value is None or value == "none":
        return None
    if value == "longllada":
        return common_pb2.RopeScaling(longllada=common_pb2.LongLlada())
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("rope_scaling: expected none, longllada or a number from 1, "
                         f"found {value!r}")
    return common_pb2.RopeScaling(factor=value)


def sampler(**fields):
    """A Sampler of its fields by name; None is a field's absence.

    rule: a name of docs/decoding.md. confidence_source: "rule", "raw" or "filtered".
    """
    if fields.get("confidence_source") is not None:
        fields["confidence_source"] = _choice("confidence_source", fields["confidence_source"],
                                              _CONFIDENCE)
    return decode_pb2.Sampler(**fields)


def grammar(kwargs):
    """Removes regex, json_schema and whitespace from kwargs; {} where no automaton is to be made."""
    given = [name for name in ("regex", "json_schema", "automaton")
             if kwargs.get(name) is not None]
    if len(given) > 1:
        raise ValueError("grammar: expected one of regex, json_schema and automaton, found "
                         + " and ".join(given))
    taken = {name: kwargs.pop(name, None) for name in ("regex", "json_schema", "whitespace")}
    if taken["whitespace"] is not None and taken["json_schema"] is None:
        raise ValueError("whitespace: expected it with json_schema")
    return taken if given and given[0] != "automaton" else {}


_PROMPT = ("messages", "document", "question", "tokens", "document_tokens", "text", "suffix")
_KEEP = ("selection", "budget", "coverage", "max_budget", "alpha", "beta", "layer_rule",
         "random_seed", "policy", "kv_dtype")
_SAMPLER = tuple(field.name for field in decode_pb2.Sampler.DESCRIPTOR.fields)


def _take(kwargs, names):
    return {name: kwargs.pop(name) for name in names if name in kwargs}


def generate(kwargs):
    """A GenerateRequest of the keyword arguments of Client.generate."""
    kwargs = dict(kwargs)
    request = decode_pb2.GenerateRequest(
        prompt=prompt(**_take(kwargs, _PROMPT)),
        keep=keep(**_take(kwargs, _KEEP)),
        rope_scaling=rope_scaling(kwargs.pop("rope_scaling", None)),
        canvas=canvas(kwargs.pop("canvas", None)),
        sampler=sampler(**_take(kwargs, _SAMPLER)))
    if not kwargs.pop("compress", True):
        request.cache = decode_pb2.CACHE_NONE
    if "reuse" in kwargs:
        request.reuse = _choice("reuse", kwargs.pop("reuse"), _REUSE)
    if kwargs.get("handle") is not None:
        request.handle.CopyFrom(kwargs["handle"])
    kwargs.pop("handle", None)
    request.stop.extend(kwargs.pop("stop", ()))
    automaton = kwargs.pop("automaton", None)
    if automaton is not None:
        request.automaton.CopyFrom(automaton.message() if hasattr(automaton, "message")
                                   else automaton)
    for name in ("request_id", "priority", "samples", "provisional", "keep_entry_ms"):
        if name in kwargs:
            setattr(request, name, kwargs.pop(name))
    _refuse_rest(kwargs)
    return request


def prefill(kwargs):
    kwargs = dict(kwargs)
    request = prefill_pb2.PrefillRequest(prompt=prompt(**_take(kwargs, _PROMPT)),
                                         keep=keep(**_take(kwargs, _KEEP)),
                                         rope_scaling=rope_scaling(
                                             kwargs.pop("rope_scaling", None)),
                                         masks=kwargs.pop("masks", 32))
    request.response.extend(kwargs.pop("response", ()))
    if (over := kwargs.pop("over", None)) is not None:
        request.document.CopyFrom(over)
    for name in ("request_id", "priority", "ignore_cached"):
        if name in kwargs:
            setattr(request, name, kwargs.pop(name))
    _refuse_rest(kwargs)
    return request


def explain(kwargs):
    kwargs = dict(kwargs)
    request = prefill_pb2.ExplainRequest(prompt=prompt(**_take(kwargs, _PROMPT)),
                                         keep=keep(**_take(kwargs, _KEEP)),
                                         rope_scaling=rope_scaling(
                                             kwargs.pop("rope_scaling", None)),
                                         masks=kwargs.pop("masks", 32),
                                         with_scores=kwargs.pop("with_scores", False),
                                         priority=kwargs.pop("priority", 0))
    request.response.extend(kwargs.pop("response", ()))
    _refuse_rest(kwargs)
    return request


def tokenize(kwargs):
    return prefill_pb2.TokenizeRequest(prompt=prompt(**kwargs))


def set_policy(policy, expected_generation=None, comment=""):
    message = budget_pb2.Policy(
        min_budget=policy.min_budget, max_budget=policy.max_budget, alpha=policy.alpha,
        beta=policy.beta, adapt_budget=policy.adapt_budget, adapt_shares=policy.adapt_shares,
        target_mass=policy.target_mass)
    if (policy.budget is None) == (policy.coverage is None):
        raise ValueError("policy: expected one of budget and coverage")
    if policy.budget is not None:
        message.budget = policy.budget
    else:
        message.coverage = policy.coverage
    request = budget_pb2.SetPolicyRequest(policy=message, comment=comment)
    if expected_generation is not None:
        request.expected_generation = expected_generation
    return request


def _refuse_rest(kwargs):
    if kwargs:
        raise TypeError(f"unknown argument {next(iter(kwargs))!r}")
