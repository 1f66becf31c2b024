# SPDX-License-Identifier: Apache-2.0
"""Automata over token ids, made of a regular expression or a JSON schema.

    python -m maskkv.grammar --tokenizer MODEL/tokenizer.json --regex "[A-Z][a-z]+" --out name.json
    python -m maskkv.grammar --server 127.0.0.1:50051 --json-schema schema.json --out person.json

The file is what `maskkv generate --automaton` reads (docs/automaton.schema.json). `Client.generate`
makes one by itself of regex= or json_schema=. Needs the packages of "maskkv[grammar]".

An answer matches as a whole: ^ at the beginning and $ at the end say nothing more. The syntax is that
of Rust's regex crate, where \\d and \\w are Unicode's; no look-around, no word boundaries, no
references. A text with a NUL byte matches nothing.
"""

import argparse
import functools
import json
import pathlib
import sys
from dataclasses import dataclass

from maskkv.v1 import decode_pb2

FORMAT = "maskkv-automaton"
VERSION = 1
_END = 0  # a byte that stands for the end of the text: after it the engine compares nothing


@dataclass(frozen=True)
class Automaton:
    """As v1.TokenAutomaton: sets hold (first, last, first, last, ...), arcs (state, set, state, ...)."""

    states: int
    start: int
    accepting: tuple[int, ...]
    sets: tuple[tuple[int, ...], ...]
    arcs: tuple[int, ...]

    def message(self):
        return decode_pb2.TokenAutomaton(
            states=self.states, start=self.start, accepting=self.accepting,
            sets=[decode_pb2.IdSet(ranges=ranges) for ranges in self.sets], arcs=self.arcs)

    def to_json(self):
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return json.dumps({"format": FORMAT, "version": VERSION, **fields}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text):
        fields = json.loads(text)
        found = (fields.get("format"), fields.get("version"))
        if found != (FORMAT, VERSION):
            raise ValueError(f"automaton: expected format {FORMAT} {VERSION}, found {found}")
        return cls(fields["states"], fields["start"], tuple(fields["accepting"]),
                   tuple(map(tuple, fields["sets"])), tuple(fields["arcs"]))


def _outlines():
    try:
        import outlines_core
    except ImportError as error:
        raise ImportError('regex and json_schema need the packages of "maskkv[grammar]"') from error
    return outlines_core


def schema_regex(schema, whitespace=None):
    """The regular expression of a JSON schema: a dict, or JSON text.

    whitespace: a regular expression of what may stand between tokens of JSON; None: at most one space.
    """
    text = schema if isinstance(schema, str) else json.dumps(schema)
    return _outlines().json_schema.build_regex_from_schema(text, whitespace)


def _whole(regex):
    """Without the anchors that whole matches have anyway."""
    regex = regex.removeprefix("^")
    body = regex.removesuffix("$")
    escapes = len(body) - len(body.rstrip("\\"))
    return body if escapes % 2 == 0 else regex  # an escaped $ is a character


def _byte_automaton(regex):
    """-> table (states + 1, 256) of next states, the last state dead; start; which states accept.

    The library stops at the first alternative that matches ("a|ab" would never take "ab"), so the
    text ends with a byte of its own, before which nothing has matched.
    """
    import numpy as np

    outlines_core = _outlines()
    vocabulary = outlines_core.Vocabulary(256, {bytes([byte]): [byte] for byte in range(256)})
    try:
        index = outlines_core.Index(f"(?:{_whole(regex)})\\x00", vocabulary)
    except ValueError as error:
        raise ValueError(f"regex: {error}") from None
    transitions, finals = index.get_transitions(), set(index.get_final_states())
    numbers = {state: i for i, state in enumerate(sorted({*transitions, *finals}))}
    dead = len(numbers)
    table = np.full((dead + 1, 256), dead, np.int32)
    accepting = np.zeros(dead + 1, bool)
    for state, arcs in transitions.items():
        for byte, target in arcs.items():
            if byte == _END:
                accepting[numbers[state]] = target in finals
            elif byte < 256:
                table[numbers[state], byte] = numbers[target]
    return table, numbers[index.get_initial_state()], accepting


class Compiler:
    """Makes automata for one vocabulary: the bytes of each token id, b"" for one that is no text."""

    def __init__(self, vocabulary):
        import numpy as np

        self._ids = np.array([i for i, token in enumerate(vocabulary) if token], np.int64)
        tokens = [token for token in vocabulary if token]
        self._lengths = np.array([len(token) for token in tokens], np.int64)
        longest = max(map(len, tokens), default=0)
        padded = b"".join(token.ljust(longest, b"\0") for token in tokens)
        self._bytes = np.frombuffer(padded, np.uint8).reshape(len(tokens), longest)
        self._made = functools.lru_cache(maxsize=32)(self._make)

    def automaton(self, *, regex=None, json_schema=None, whitespace=None):
        """Of one of both. ValueError for what is no regular expression or schema, or where no answer
        can be written with the vocabulary."""
        if (regex is None) == (json_schema is None):
            raise ValueError("grammar: expected one of regex and json_schema")
        if json_schema is not None:
            try:
                regex = schema_regex(json_schema, whitespace)
            except (TypeError, ValueError) as error:
                raise ValueError(f"json_schema: {error}") from None
        return self._made(regex)

    def _after(self, table, state):
        """(tokens): where the table is after each token, from `state`."""
        import numpy as np

        dead = len(table) - 1
        states = np.full(len(self._ids), state, np.int32)
        running = np.arange(len(self._ids))
        for place in range(self._bytes.shape[1]):
            running = running[self._lengths[running] > place]
            if len(running) == 0:
                break
            states[running] = table[states[running], self._bytes[running, place]]
            running = running[states[running] != dead]
        return states

    def _arcs(self, table, start):
        """{state: {next state: ranges of ids}} of all states that whole tokens reach."""
        import numpy as np

        dead, arcs, waiting = len(table) - 1, {}, [start]
        while waiting:
            state = waiting.pop()
            if state in arcs:
                continue
            after = self._after(table, state)
            arcs[state] = {int(target): _ranges(self._ids[after == target])
                           for target in np.unique(after) if target != dead}
            waiting.extend(arcs[state])
        return arcs

    def _make(self, regex):
        table, start, accepting = _byte_automaton(regex)
        arcs = self._arcs(table, start)
        useful = _leading_to({state for state in arcs if accepting[state]}, arcs)
        if start not in useful:
            raise ValueError("grammar: expected an answer that the vocabulary can write, found none")
        numbers = {state: i for i, state in enumerate(sorted(useful))}
        sets, flat = {}, []
        for state in numbers:
            for target, ranges in arcs[state].items():
                if target in useful:
                    index = sets.setdefault(ranges, len(sets))
                    flat += [numbers[state], index, numbers[target]]
        return Automaton(len(numbers), numbers[start],
                         tuple(numbers[state] for state in numbers if accepting[state]),
                         tuple(sets), tuple(flat))


def _ranges(ids):
    """Ascending ids -> (first, last, first, last, ...)."""
    import numpy as np

    cuts = np.flatnonzero(np.diff(ids) > 1)
    firsts, lasts = ids[np.r_[0, cuts + 1]], ids[np.r_[cuts, len(ids) - 1]]
    return tuple(np.stack([firsts, lasts], axis=1).ravel().tolist())


def _leading_to(states, arcs):
    """States from which one of `states` can be reached, themselves included."""
    before = {}
    for state, targets in arcs.items():
        for target in targets:
            before.setdefault(target, []).append(state)
    found, waiting = set(states), list(states)
    while waiting:
        for state in before.get(waiting.pop(), ()):
            if state not in found:
                found.add(state)
                waiting.append(state)
    return found


def _byte_of_character():
    """The characters that byte-level BPE writes bytes as (GPT-2's table)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(byte): byte for byte in shown}
    hidden = [byte for byte in range(256) if byte not in shown]
    return table | {chr(256 + i): byte for i, byte in enumerate(hidden)}


def vocabulary_of(path):
    """Bytes by id of a byte-level BPE tokenizer.json; b"" for special tokens and gaps."""
    file = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    if (file.get("decoder") or {}).get("type") != "ByteLevel":
        raise ValueError(f"{path}: expected a byte-level decoder, found another one")
    bytes_of = _byte_of_character()
    tokens = {i: bytes(bytes_of[c] for c in text) for text, i in file["model"]["vocab"].items()}
    for added in file.get("added_tokens", ()):
        tokens[added["id"]] = b"" if added["special"] else added["content"].encode()
    return tuple(tokens.get(i, b"") for i in range(max(tokens) + 1))


def main(arguments=None):
    parser = argparse.ArgumentParser(
        prog="python -m maskkv.grammar",
        description="Makes the automaton file of maskkv generate --automaton.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--tokenizer", metavar="FILE", help="tokenizer.json of the model")
    source.add_argument("--server", metavar="ADDRESS", help="a running prefill service")
    grammar = parser.add_mutually_exclusive_group(required=True)
    grammar.add_argument("--regex", help="what the whole answer matches")
    grammar.add_argument("--json-schema", metavar="FILE", type=pathlib.Path)
    parser.add_argument("--whitespace", metavar="REGEX",
                        help="what may stand between tokens of JSON; default: at most one space")
    parser.add_argument("--out", metavar="FILE", type=pathlib.Path, required=True)
    args = parser.parse_args(arguments)
    try:
        if args.tokenizer:
            vocabulary = vocabulary_of(args.tokenizer)
        else:
            from maskkv.client import Client
            with Client(args.server) as client:
                vocabulary = client.vocabulary()
        schema = args.json_schema and args.json_schema.read_text(encoding="utf-8")
        automaton = Compiler(vocabulary).automaton(regex=args.regex, json_schema=schema,
                                                   whitespace=args.whitespace)
        args.out.write_text(automaton.to_json() + "\n", encoding="utf-8")
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f"maskkv.grammar: {error}")


if __name__ == "__main__":
    main()
