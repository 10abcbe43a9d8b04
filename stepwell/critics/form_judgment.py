"""The grammars of replies that judge a whole solution: a critique (CTRL, METHODS.md 2.1) and a verifier's answer (5).

Belongs here: what such replies must state and how it is found. Does not belong here: handling of text that both share
with other kinds (`reading`), the table of tolerances (`grammar`).
"""

from __future__ import annotations

import re
from typing import Any

from stepwell.critics.reading import HEAD, Facts, Reading, closed, fields, letters, split_lines

ANALYSIS, SUGGESTIONS, JUDGMENT = "Analysis", "Improvement suggestions", "Overall judgment"
PROBABILITY = "PROBABILITY"
_ANSWER = "the answer"

_section = fields(
    {
        ANALYSIS: "analysis",
        SUGGESTIONS: "(?:improvement[ _-])?suggestions?(?: for improvement)?",
        JUDGMENT: "overall[ _-]judge?ment",
    }
)
_CORRECT = re.compile(r"[\W_]*(?:(correct)|(incorrect))(?![a-z])", re.IGNORECASE)
_EITHER = re.compile(r"[\W_]*(?:in)?correct\s*[*_`\"']{0,3}\s*(?:/|\||or\b)[\W_]*(?:in)?correct\b", re.IGNORECASE)
_value = fields(
    {
        "answer": "(?:final )?(?:answer|verdict|judge?ment|decision)|resolved|solved",
        PROBABILITY: "probability[^:：=]{0,60}",
        "confidence": "confidence[^:：=]{0,30}",
    }
)
_YES_NO = re.compile(r"[\W_]*(?:(yes)|(no))[*_`\"'\])>}]{0,4}\s*(?P<next>$|[-–—:：,.;(!|/])", re.IGNORECASE)
_SENTENCE = re.compile(r"(?i)[\W_]*(?:so,? |therefore,? )?(?:the|my) (?:final )?answer is:?\s*")
_NUMBER = re.compile(
    r"[\s*_`\"'~≈(<]*([0-9]+(?:\.[0-9]+)?(?:e-?[0-9]+)?|\.[0-9]+)\s*(%)?(?![\w/]|\.[0-9])", re.IGNORECASE
)


class CritiqueForm:
    """Analysis, improvement suggestions and an overall judgment."""

    heads = re.compile(r"(?i)\banalysis\b|\bsuggestions\b|\boverall[ _-]judge?ment\b")
    _inline = re.compile(r"(?<=[ \t.])(?=[*_`]{0,3}overall judge?ment[*_`]{0,3}[:：])", re.IGNORECASE)

    def scan(self, text: str, facts: Facts) -> None:
        """Sections; what stands before the first is the analysis when no section is headed so."""
        spans: list[tuple[str, list[str]]] = [("", [])]
        for line in split_lines(text, self._inline):
            found = _section(line)
            if found:
                spans.append((found[0], [found[1]]))
            else:
                spans[-1][1].append(line)
        headed = {key for key, _ in spans}
        for key, lines in spans:
            if key == JUDGMENT:
                self._judge(next((line for line in lines if letters(line)), ""), facts)
            elif key or (JUDGMENT in headed and ANALYSIS not in headed):
                facts.write(key or ANALYSIS, "\n".join(lines))
                facts.repairs += [] if key or not letters("".join(lines)) else [f"the heading {ANALYSIS} is missing"]

    def _judge(self, value: str, facts: Facts) -> None:
        """`Incorrect` may go on about what is correct; `Correct` that goes on about what is incorrect is both."""
        value = value[:HEAD]
        found = _CORRECT.match(value)
        if found and not _EITHER.match(value):
            facts.say(JUDGMENT, "Correct" if found[1] else "Incorrect")
            if found[1] and re.search(r"(?i)\bincorrect\b|\b(?:not|isn't) correct\b", value[found.end() :]):
                facts.say(JUDGMENT, "Incorrect")

    def take(self, document: dict[str, Any], facts: Facts) -> bool:
        """`{"analysis", "improvement_suggestions", "overall_judgment"}`."""
        before = len(facts.said) + len(facts.texts)
        for key, value in document.items():
            found = _section(key)
            if found and isinstance(value, str):
                if found[0] == JUDGMENT:
                    self._judge(value, facts)
                else:
                    facts.write(found[0], value)
        return len(facts.said) + len(facts.texts) > before

    def build(self, facts: Facts) -> Reading:
        """One judgment is needed; a section that is missing is missed."""
        said = facts.settle([JUDGMENT])
        sections = [(name, facts.text(name)) for name in (ANALYSIS, SUGGESTIONS)]
        facts.repairs += [f"{name} is missing" for name, text in sections if text is None]
        guidance = "\n\n".join(f"{name}:\n{text}" for name, text in sections if text)
        return Reading("ok", guidance=guidance or None, judgment=said.get(JUDGMENT) == "Correct")

    def write(self, reading: Reading) -> str:
        """Canonical text."""
        judgment = f"{JUDGMENT}: {'Correct' if reading.judgment else 'Incorrect'}"
        return f"{reading.guidance}\n\n{judgment}" if reading.guidance else judgment

    def document(self, reading: Reading) -> dict[str, Any]:
        """Canonical JSON."""
        analysis, _, suggestions = (reading.guidance or "").partition(f"\n\n{SUGGESTIONS}:\n")
        return {
            "analysis": analysis.removeprefix(f"{ANALYSIS}:\n"),
            "improvement_suggestions": suggestions,
            "overall_judgment": "Correct" if reading.judgment else "Incorrect",
        }

    def schema(self) -> dict[str, Any]:
        """All three are required."""
        text, judgment = {"type": "string"}, {"type": "string", "enum": ["Correct", "Incorrect"]}
        return closed({"analysis": text, "improvement_suggestions": text, "overall_judgment": judgment})

    def sketch(self) -> str:
        """The three sections."""
        return f"{ANALYSIS}:\n<analysis>\n\n{SUGGESTIONS}:\n<suggestions>\n\n{JUDGMENT}: <Correct or Incorrect>"


class VerifierForm:
    """YES or NO, and perhaps the probability of YES."""

    heads = re.compile(r"(?i)\b(?:yes|no)\b")

    def scan(self, text: str, facts: Facts) -> None:
        """An answer is a first line that begins with it, a line that is nothing else, or a line that says it is one."""
        first = True
        for line in text.split("\n"):
            found = _value(line)
            sentence = _SENTENCE.match(line[:HEAD])
            if found and found[0] != "answer":
                self._number(found[0], found[1], facts)
            elif found or sentence:
                self._answer(found[1] if found else line[sentence.end() :] if sentence else "", facts)
            elif letters(line[:HEAD]) in ("yes", "no") or first:
                self._answer(line, facts)
            first = first and not letters(line[:HEAD])

    def _answer(self, value: str, facts: Facts) -> None:
        found = _YES_NO.match(value[:HEAD])
        if found and not re.match(r"[/|]\W*(?:yes|no)\b", value[found.start("next") :][:HEAD], re.IGNORECASE):
            facts.say(_ANSWER, "YES" if found[1] else "NO")

    def _number(self, key: str, value: str, facts: Facts) -> None:
        found = _NUMBER.match(value[:HEAD])
        number = float(found[1]) / (100 if found[2] else 1) if found else -1.0
        if 0 <= number <= 1:
            facts.write(key, repr(number))
        else:
            facts.repairs.append(f"{key} {value[:HEAD].strip()!r} is left out: it is no number from 0 to 1")

    def take(self, document: dict[str, Any], facts: Facts) -> bool:
        """`{"answer", "probability"}`."""
        before = len(facts.said) + len(facts.texts)
        for key, value in document.items():
            found = _value(key)
            if found and found[0] == "answer" and isinstance(value, str):
                self._answer(value, facts)
            elif found and found[0] != "answer" and value is not None:
                self._number(found[0], "" if isinstance(value, bool) else str(value), facts)
        return len(facts.said) + len(facts.texts) > before

    def build(self, facts: Facts) -> Reading:
        """PROBABILITY is that of YES and must agree with the answer; a confidence is in the answer, whichever it is."""
        said = facts.settle([_ANSWER])
        yes = said.get(_ANSWER) == "YES"
        numbers = {key: facts.texts.get(key, []) for key in (PROBABILITY, "confidence")}
        facts.refusals += [f"{key} is {' and '.join(n)}" for key, n in numbers.items() if len(n) > 1]
        probability = None
        if numbers[PROBABILITY]:
            probability = float(numbers[PROBABILITY][0])
            if probability != 0.5 and (probability > 0.5) != yes:
                facts.refusals.append(f"{_ANSWER} is {said.get(_ANSWER)} and the probability of YES {probability}")
        elif numbers["confidence"]:
            confidence = float(numbers["confidence"][0])
            if confidence >= 0.5:
                probability = confidence if yes else round(1 - confidence, 12)
                facts.repairs.append("a confidence in the answer is read as the probability of YES")
            else:
                facts.repairs.append(f"confidence {confidence} is left out: it may be in the answer or in YES")
        return Reading("ok", judgment=yes, confidence=probability)

    def write(self, reading: Reading) -> str:
        """Canonical text."""
        answer = "YES" if reading.judgment else "NO"
        return answer if reading.confidence is None else f"{answer}\n{PROBABILITY}: {reading.confidence!r}"

    def document(self, reading: Reading) -> dict[str, Any]:
        """Canonical JSON."""
        return {"answer": "YES" if reading.judgment else "NO", "probability": reading.confidence}

    def schema(self) -> dict[str, Any]:
        """The probability may be null."""
        return closed(
            {"answer": {"type": "string", "enum": ["YES", "NO"]}, "probability": {"type": ["number", "null"]}}
        )

    def sketch(self) -> str:
        """The answer stands first, so that its probability can be read from the first token."""
        return f"<YES or NO>\n{PROBABILITY}: <a number from 0 to 1>"
