"""Readings: what a critic's reply says, and the text handling that the grammars of all kinds share.

Belongs here: the result types, collecting statements so that contradictions show, cleaning replies of what is not reply.
Does not belong here: what a kind of reply must state (`form_steer`, `form_steps`, `form_judgment`, `form_pair`). All of it
runs in time linear in the text, whatever the text is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Kind = Literal["steer", "steps", "critique", "verifier", "pair"]
Status = Literal["ok", "repaired", "unparseable"]

HEAD = 200
"""Characters of a line that are looked at for a field, a name or an answer."""
_ATTEMPTS = 50  # places at which JSON is tried: each try can read to the end of the text
_THINKING = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>", re.IGNORECASE)
_BEGIN = re.compile(r"\s*<\|im_start\|>\s*assistant\b|\s*<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>")
_STOP = re.compile(r"<\|(?:im_end|endoftext|eot_id|end_of_text|end|eom_id)\|>|</s>|<end_of_turn>")
_AGENT = re.compile(
    r"\s*(?:\W{0,3}THOUGHTS?\W{0,3}:|```(?:mswea_)?(?:bash|sh|shell)\w*|<tool_call>|<function[=_ ]|<bash>)",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)\w*[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"\(?[0-9]{1,3}[.)\]](?![0-9])\s*")
_NO_LETTERS = bytes(code for code in range(128) if not chr(code).isalpha())
EMPTY = frozenset({"", "none", "na", "null", "notapplicable", "nonedetected", "nil"})


@dataclass(frozen=True)
class Detection:
    """One error category found: its id in the taxonomy, what shows it, what the agent should do about it."""

    category: str
    evidence: str | None
    recovery: str | None


@dataclass(frozen=True)
class Reading:
    """What a reply says; only the fields of its kind are set, and none of them when it is `unparseable`.

    `severity` 0 to 2, `detections` and `guidance` (steer); `judgment` and `guidance` (critique); `judgment` and
    `confidence`, the probability in [0, 1] that the work is right, where the text gives one (verifier); `labels` and
    `rationales` by step (steps); `judgment`, that the attempt shown first is the better one (pair; none and a `confidence` of
    0.5 for a tie). `problems` says what was repaired, or why it cannot be read.
    """

    status: Status
    severity: int | None = None
    detections: tuple[Detection, ...] = ()
    guidance: str | None = None
    judgment: bool | None = None
    confidence: float | None = None
    labels: Mapping[int, str] = field(default_factory=dict)
    rationales: Mapping[int, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Facts:
    """What a reply states, collected before any of it is believed: answers and texts by what they are about."""

    def __init__(self) -> None:
        self.said: dict[str, list[str]] = {}
        self.texts: dict[str, list[str]] = {}
        self.repairs: list[str] = []
        self.refusals: list[str] = []

    def say(self, about: str, answer: str) -> None:
        """An answer; the same one again is a repair, another one a contradiction (found by `settle`)."""
        answers = self.said.setdefault(about, [])
        if answer in answers:
            self.repairs.append(f"{about} is answered more than once")
        else:
            answers.append(answer)

    def write(self, about: str, text: str) -> None:
        """A piece of text; what is blank, or was written already, is not kept."""
        text = text.encode("utf-8", "replace").decode("utf-8").strip()
        if text and text not in self.texts.setdefault(about, []):
            self.texts[about].append(text)

    def text(self, about: str, joint: str = "\n") -> str | None:
        """All pieces of text about something."""
        return joint.join(self.texts.get(about, ())) or None

    def settle(self, asked: Iterable[str]) -> dict[str, str]:
        """The one answer to everything asked; whatever is missing, contradictory or not asked for is a refusal."""
        asked = list(asked)
        missing = [about for about in asked if about not in self.said]
        if missing:
            self.refusals.append(f"not answered: {', '.join(missing)}")
        for about, answers in self.said.items():
            if about not in asked:
                self.refusals.append(f"{about} was not asked about")
            elif len(answers) > 1:
                self.refusals.append(f"{about} is answered {' and '.join(answers)}")
        return {about: answers[0] for about, answers in self.said.items()}


class Form(Protocol):
    """The grammar of one kind of reply."""

    heads: re.Pattern[str]
    """Where a field begins; decides what is prose before the reply and what is a fence round it."""

    def scan(self, text: str, facts: Facts) -> None:
        """Collect what a text states."""

    def take(self, document: dict[str, Any], facts: Facts) -> bool:
        """Collect what a JSON object states; False when it states nothing."""

    def build(self, facts: Facts) -> Reading:
        """The reading of the facts; what cannot be believed is added to their refusals."""

    def write(self, reading: Reading) -> str:
        """The reading in canonical form."""

    def document(self, reading: Reading) -> dict[str, Any]:
        """The reading as the JSON object that `schema` describes."""

    def schema(self) -> dict[str, Any]:
        """JSON Schema of a reply."""

    def sketch(self) -> str:
        """The canonical form with blanks in angle brackets, for prompts."""


def spoken(text: str) -> str:
    """The reply without thoughts, chat markup and carriage returns.

    What stands before a closing tag that was never opened is thought, and so is all that follows one never closed.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if begin := _BEGIN.match(text):
        text = text[begin.end() :]
    text = text[: stop.start()] if (stop := _STOP.search(text)) else text
    kept: list[str] = []
    position, thinking = 0, False
    for tag in _THINKING.finditer(text):
        if tag[1]:
            kept = kept if thinking else []
            position, thinking = tag.end(), False
        elif not thinking:
            kept.append(text[position : tag.start()])
            thinking = True
    return "".join(kept) + ("" if thinking else text[position:])


def is_agent_turn(text: str) -> bool:
    """Whether a text begins like a turn of an agent: THOUGHT, a shell block or a tool call."""
    return bool(_AGENT.match(text))


def unfenced(text: str, heads: re.Pattern[str]) -> str:
    """The inside of the code fence round the reply, when one opens before its first field."""
    first = heads.search(text)
    fence = _FENCE.search(text[: first.start()]) if first else None
    if fence is None:
        return text
    inside = text[fence.end() :]
    closing = [f.start() for f in _FENCE.finditer(inside)]
    return inside[: closing[-1]] if closing else inside


def documents(text: str, take: Callable[[dict[str, Any]], bool]) -> tuple[list[dict[str, Any]], str]:
    """The JSON objects in a text that `take` accepts, and the text without them.

    An object that names a key twice contradicts itself; it is left in the text, where nothing reads it.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeats)
    found, rest, position = [], [], 0
    for _ in range(_ATTEMPTS):
        start = text.find("{", position)
        if start < 0:
            break
        try:
            document, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if take(document):
                found.append(document)
                rest.append(text[position:start])
                position = end
                continue
        rest.append(text[position:end])
        position = end
    return found, "".join(rest) + text[position:]


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is there twice")
    return mapping


def letters(text: str) -> str:
    """Only the letters, folded: what names and answers are compared by."""
    if text.isascii():
        return text.lower().encode().translate(None, _NO_LETTERS).decode()
    return "".join(filter(str.isalpha, text.casefold()))


def split_lines(text: str, inline: re.Pattern[str]) -> Iterator[str]:
    """The lines of a text, cut also where `inline` finds a field after other words on the same line."""
    for line in text.split("\n"):
        start = checked = 0
        for found in inline.finditer(line):
            words = any(c.isalpha() for c in line[checked : found.start()])
            checked = found.start()
            if words:
                yield line[start:checked]
                start = checked
        yield line[start:]


def bare(line: str, numbered: bool = True) -> str:
    """A line without bullets, quote and heading signs, table bars and (when `numbered`) numbering before it."""
    line = line.lstrip(" \t>#|•·+-–—")
    line = line[1:].lstrip() if line.startswith("* ") else line
    number = _NUMBER.match(line) if numbered else None
    return line[number.end() :] if number else line


def fields(names: Mapping[str, str]) -> Callable[[str], tuple[str, str] | None]:
    """A function from a line to the field it begins and the rest of the line; `names` has a pattern for each field.

    The name may be bold and is followed by a colon (`:`, `：` or `=`), or by nothing, as in a heading.
    """
    keys = list(names)
    either = "|".join(f"({names[key]})" for key in keys)
    pattern = re.compile(rf"(?P<open>[*_`]{{0,4}})(?:{either})(?P<close>[*_`]{{0,4}})\s*(?:[:：=]\s*|$)", re.IGNORECASE)

    def match(line: str) -> tuple[str, str] | None:
        line = bare(line)
        found = pattern.match(line)
        if found is None:
            return None
        rest, opened = line[found.end() :], found["open"]
        if opened and not found["close"]:
            rest = rest.removeprefix(opened) if rest.startswith(opened) else rest.rstrip().removesuffix(opened)
        return next(key for i, key in enumerate(keys) if found[i + 2] is not None), rest

    return match


def closest(name: str, known: Mapping[str, str]) -> tuple[str | None, bool]:
    """What a name means, and whether it is exact: the only nearest known name within two letters (one if short).

    The first letter must be right: a prefix (`necessary`, `unnecessary`) turns the meaning round.
    """
    name = letters(name)
    if name in known:
        return known[name], True
    limit = 2 if len(name) >= 8 else 1 if len(name) >= 5 else 0
    near: dict[int, set[str]] = {}
    for other, meaning in known.items():
        if abs(len(other) - len(name)) <= limit and other[:1] == name[:1]:
            near.setdefault(_distance(name, other), set()).add(meaning)
    best = min(near, default=limit + 1)
    return (near[best].pop() if best <= limit and len(near[best]) == 1 else None), False


def _distance(a: str, b: str) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        above, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (x != y)))
    return row[-1]


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON Schema of an object with exactly these properties."""
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
