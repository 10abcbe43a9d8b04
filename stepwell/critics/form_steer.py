"""The grammar of a steering critic's feedback (STEER, METHODS.md 1.2): categories by group, status, guidance.

Belongs here: what such a reply must state and how it is found. Does not belong here: handling of text that every kind
shares (`reading`), the table of tolerances (`grammar`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from stepwell.critics.reading import (
    EMPTY,
    HEAD,
    Detection,
    Facts,
    Reading,
    bare,
    closed,
    closest,
    fields,
    letters,
    split_lines,
)
from stepwell.critics.taxonomy import Category, Taxonomy

STATUSES = ("On track", "Needs correction", "Critical intervention required")
"""What TASK_STATUS may say, by severity."""
STATUS, GUIDANCE, EVIDENCE, RECOVERY, UNLABELLED = (
    "TASK_STATUS",
    "OVERALL_GUIDANCE",
    "EVIDENCE",
    "RECOVERY_ACTION",
    "TEXT",
)
_ERRORS = "ERRORS"

_field = fields(
    {
        EVIDENCE: "EVIDENCE",
        RECOVERY: "RECOVERY[ _-]?ACTIONS?",
        STATUS: "TASK[ _-]?STATUS",
        GUIDANCE: "OVERALL[ _-]?GUIDANCE",
    }
)
_DETECTED = re.compile(r"(?<![^\W_])detected[*_`]*[ \t]*[:：=]", re.IGNORECASE)
_YES_NO = re.compile(r"[\s\"'*_`\[(<{]*(?:(yes|true)|(no|none|false|not detected))(?![a-z0-9])", re.IGNORECASE)
_BOTH = re.compile(r"[\s\"'*_`\[(<{]*(?:yes\s*(?:/|\||or|and)\s*no|no\s*(?:/|\||or|and)\s*yes)\b", re.IGNORECASE)
_SEPARATOR = re.compile(r"^[*_`\"')\]}>]{0,4}[ \t.,:;|–—-]*")
_ALONE = re.compile(r"[\"'*_`\])}>]*\s*(?:$|[.,;:(|–—-])")
_STATUS = re.compile(
    r"(?<![a-z])(?:(on[ _-]?track)|(needs?[ _-]correction)|(critical[ _-]intervention))(?![a-z])"
    r"(?!\W{0,3}\?|\s+(?:is\s+)?(?:not\b|unclear|unneeded|unnecessary))",
    re.IGNORECASE,
)
_NEGATED = re.compile(r"(?:\b(?:not|no|never|without|nor)|n't)\W+(?:\w+\W+){0,2}$", re.IGNORECASE)
_OTHERS = "others"
_REST = frozenset(
    {"allothercategories", "allothers", "othercategories", "remainingcategories", "allremainingcategories"}
)
_NOTHING = EMPTY | {"no", "noerrors", "noerrorsdetected", "noissues", "noissuesdetected", "noneofthese", "notdetected"}


def _answer(value: str) -> tuple[str, str]:
    """Yes, No or nothing for what is no clear answer (or a blank left as it was), and what follows the answer."""
    found = _YES_NO.match(value[:HEAD])
    if found is None or _BOTH.match(value[:HEAD]):
        return "", ""
    rest = _SEPARATOR.sub("", value[found.end() :], count=1).rstrip(" \t|")
    return ("Yes" if found[1] else "No"), rest if letters(rest) else ""


def _statuses(value: str) -> list[str]:
    """The statuses a value names, the negated ones left out; none unless one stands first, none when all three do."""
    value = value[:HEAD]
    if letters(value) == "critical":
        return [STATUSES[2]]
    found = [m for m in _STATUS.finditer(value) if not _NEGATED.search(value[max(0, m.start() - 30) : m.start()])]
    named = list(dict.fromkeys(next(s for i, s in enumerate(STATUSES, 1) if m[i]) for m in found))
    first = bool(found) and not letters(value[: found[0].start()])
    return named if first and len(named) < len(STATUSES) else []


class SteerForm:
    """Replies under one taxonomy."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self.groups = taxonomy.groups
        self.categories: tuple[Category, ...] = tuple(c for group in self.groups.values() for c in group)
        self.known = {letters(c.id): c.id for c in self.categories} | {letters(c.name): c.id for c in self.categories}
        titles = "|".join(re.escape(group) for group in self.groups)
        keys = rf"(?:{EVIDENCE}|{RECOVERY}|{STATUS}|{GUIDANCE}|(?:{titles.upper()})[ ]{_ERRORS})[*_`]{{0,4}}[:：]"
        self.heads = re.compile(
            rf"(?i)\bdetected\b|\btask[ _-]?status\b|\boverall[ _-]?guidance\b|\b(?:{titles}) errors\b"
        )
        names = "|".join(re.escape(c.name) for c in self.categories)
        items = rf"\(?[0-9]{{1,2}}[.)] [*_`]{{0,4}}(?i:{names})\W{{1,8}}(?i:detected)"
        self.inline = re.compile(rf"(?<=[ \t|;])(?=[*_`]{{0,4}}(?:{keys}|{items}))")

    def scan(self, text: str, facts: Facts) -> None:
        """Lines are sorted into spans, each headed by a field; then each span is read."""
        spans: list[tuple[str, list[str]]] = [("", [])]
        item: str | None = None
        for line in split_lines(text, self.inline):
            head = line[:HEAD]
            if named := self._item(line, item, spans[-1][1], facts):
                item, rest = named
                spans.append((f"{item}/{UNLABELLED}", [rest]))
            elif found := _field(line):
                key, rest = found
                if key in (EVIDENCE, RECOVERY):
                    key = f"{item}/{key}"
                else:
                    item = None
                spans.append((key, [rest]))
            elif title := self._title(head):
                item = None
                spans.append((f"{title[0]} {_ERRORS}", [title[1]]))
            elif letters(head) in self.known and len(line) < HEAD:
                item = self.known[letters(head)]
                spans.append((f"{item}/{UNLABELLED}", []))
            else:
                spans[-1][1].append(line)
        for key, lines in spans:
            self._span(key, lines, facts)
        if facts.texts.pop(_OTHERS, None):
            self._none([c for c in self.categories if c.id not in facts.said], "all others", facts)

    def _item(self, line: str, item: str | None, before: list[str], facts: Facts) -> tuple[str, str] | None:
        """The category a line answers for and what follows the answer; None for a line that answers for none."""
        head = line[:HEAD]
        if found := _DETECTED.search(head):
            name, value = head[: found.start()], line[found.end() :]
        else:
            name, colon, value = line.replace("：", ":").partition(":")
            plain = _YES_NO.match(value[:HEAD])
            if not colon or len(name) > HEAD or not plain or not _ALONE.match(value[plain.end() :]):
                return None
        answer, rest = _answer(value)
        category, exact = closest(name, self.known)
        if not letters(name) and found:  # the name stands on a line of its own
            while before and not letters(before[-1]):
                before.pop()
            name = before.pop() if before and (not item or item in facts.said) else item or ""
            category, exact = closest(name, self.known)
        told = bare(name).strip(" \t*_`:-")
        if category:
            facts.repairs += [] if exact else [f"{told!r} read as {category}"]
            if answer:
                facts.say(category, answer)
            return category, rest
        group = self._title(name)
        if answer == "No" and not rest and (group or letters(name) in _REST):
            if group:
                self._none(self.groups[group[0]], group[0], facts)
            else:
                facts.write(_OTHERS, answer)
        elif found and answer:
            outside = f"category {told!r} is not in {self.taxonomy.id}"
            (facts.refusals if answer == "Yes" else facts.repairs).append(outside)
        else:
            return None
        return "", ""

    def _title(self, line: str) -> tuple[str, str] | None:
        """The group a line heads, and what follows its title."""
        folded = bare(line).lstrip("*_` ").casefold()
        for group in self.groups:
            title = f"{group} {_ERRORS}".casefold()
            rest = folded.removeprefix(title).lstrip("*_` ")
            if folded.startswith(title) and (not rest or rest[0] in ":：(-–—"):
                return group, rest.strip(":：()-–—*_` ")
        return None

    def _none(self, categories: list[Category], of: str, facts: Facts) -> None:
        """One statement that none of several categories is detected."""
        facts.repairs.append(f"one answer for {of}")
        for category in categories:
            facts.say(category.id, "No")

    def _span(self, key: str, lines: list[str], facts: Facts) -> None:
        text = "\n".join(lines)
        if key == STATUS:
            values = [line for line in lines if letters(line)]
            for status in [
                s for i, line in enumerate(values) for s in _statuses(line) if i == 0 or _statuses(values[0])
            ]:
                facts.say(STATUS, status)
        elif key.endswith(f" {_ERRORS}"):
            if letters(text) and len(text) < HEAD and letters(text) in _NOTHING:
                group = key.removesuffix(f" {_ERRORS}")
                self._none(self.groups[group], group, facts)
        elif key == GUIDANCE or key.partition("/")[2]:
            facts.write(key, "" if letters(text[:HEAD]) in EMPTY - {""} else text)

    def take(self, document: dict[str, Any], facts: Facts) -> bool:
        """Objects may be nested and lists may name their category; what counts is the key or name of each answer."""
        before = len(facts.said) + len(facts.texts) + len(facts.refusals)
        stack: list[tuple[str, Any]] = [("", document)]
        while stack:
            key, value = stack.pop()
            name = letters(key[:HEAD])
            if isinstance(value, dict):
                folded = {letters(k): v for k, v in value.items()}
                if "detected" in folded:
                    self._object(folded.get("category") or folded.get("name") or folded.get("id") or key, folded, facts)
                else:
                    stack += reversed(list(value.items()))
            elif isinstance(value, list):
                stack += [(key, entry) for entry in reversed(value)]
            elif name == letters(STATUS) and isinstance(value, str):
                for status in _statuses(value):
                    facts.say(STATUS, status)
            elif name == letters(GUIDANCE) and isinstance(value, str):
                facts.write(GUIDANCE, value)
            elif name in self.known:
                self._object(key, {"detected": value}, facts)
        return len(facts.said) + len(facts.texts) + len(facts.refusals) > before

    def _object(self, name: object, value: dict[str, Any], facts: Facts) -> None:
        category, exact = closest(str(name)[:HEAD], self.known)
        detected = value["detected"]
        answer = _answer(detected)[0] if isinstance(detected, str) else ""
        answer = ("Yes" if detected else "No") if isinstance(detected, bool) else answer
        if category is None:
            (facts.refusals if answer != "No" else facts.repairs).append(
                f"category {name!r} is not in {self.taxonomy.id}"
            )
            return
        if not exact:
            facts.repairs.append(f"{name!r} read as {category}")
        if answer:
            facts.say(category, answer)
        for key, text in ((EVIDENCE, value.get("evidence")), (RECOVERY, value.get("recoveryaction"))):
            if isinstance(text, str) and letters(text[:HEAD]) not in EMPTY - {""}:
                facts.write(f"{category}/{key}", text)

    def build(self, facts: Facts) -> Reading:
        """Every category and the status must be answered once; guidance may be missing only when all is on track."""
        said = facts.settle([*(c.id for c in self.categories), STATUS])
        severity = STATUSES.index(said[STATUS]) if STATUS in said else 0
        guidance = facts.text(GUIDANCE)
        if guidance is None:
            (facts.refusals if severity else facts.repairs).append(f"{GUIDANCE} is missing")
        return Reading("ok", severity, tuple(self._detections(said, facts)), guidance)

    def _detections(self, said: dict[str, str], facts: Facts) -> Iterator[Detection]:
        for category in (c.id for c in self.categories):
            evidence, recovery, loose = (facts.text(f"{category}/{key}") for key in (EVIDENCE, RECOVERY, UNLABELLED))
            if said.get(category) == "Yes":
                if not evidence or not recovery:
                    facts.repairs.append(f"{category} is detected without {EVIDENCE if not evidence else RECOVERY}")
                yield Detection(category, evidence or loose, recovery)
            elif evidence or recovery:
                facts.repairs.append(f"text about {category}, which is not detected, is left out")

    def write(self, reading: Reading) -> str:
        """Canonical text."""
        found = {self.taxonomy[d.category].id: d for d in reading.detections}
        lines, number = [], 0
        for group, categories in self.groups.items():
            lines.append(f"{group.upper()} {_ERRORS}:")
            for category in categories:
                number, detection = number + 1, found.get(category.id)
                lines.append(f"{number}. {category.name}: DETECTED: {'Yes' if detection else 'No'}")
                for key, text in ((EVIDENCE, detection.evidence), (RECOVERY, detection.recovery)) if detection else ():
                    lines += [f"   {key}: {text}"] if text else []
        lines.append(f"{STATUS}: {STATUSES[reading.severity or 0]}")
        return "\n".join([*lines, f"{GUIDANCE}: {reading.guidance}"] if reading.guidance else lines)

    def document(self, reading: Reading) -> dict[str, Any]:
        """Canonical JSON."""
        found = {d.category: d for d in reading.detections}
        categories: dict[str, Any] = {}
        for category in self.categories:
            detection = found.get(category.id)
            texts = {"evidence": detection.evidence, "recovery_action": detection.recovery} if detection else {}
            categories[category.id] = {"detected": detection is not None, **texts}
        status = STATUSES[reading.severity or 0]
        return {"categories": categories, "task_status": status, "overall_guidance": reading.guidance}

    def schema(self) -> dict[str, Any]:
        """Evidence and recovery action are there exactly where a category is detected."""
        text = {"type": "string"}
        yes = closed({"detected": {"const": True}, "evidence": text, "recovery_action": text})
        item = {"anyOf": [closed({"detected": {"const": False}}), yes]}
        categories = closed({c.id: item for c in self.categories})
        status = {"type": "string", "enum": list(STATUSES)}
        return closed({"categories": categories, "task_status": status, "overall_guidance": text})

    def sketch(self) -> str:
        """Every item, with the two lines that follow a Yes shown once."""
        lines = self.write(Reading("ok", 0)).replace("DETECTED: No", "DETECTED: <Yes or No>").split("\n")[:-1]
        lines[2:2] = [
            f"   {EVIDENCE}: <only after Yes: what shows it>",
            f"   {RECOVERY}: <only after Yes: what to do about it>",
        ]
        return "\n".join(
            [*lines, f"{STATUS}: <{', '.join(STATUSES[:2])} or {STATUSES[2]}>", f"{GUIDANCE}: <your guidance>"]
        )
