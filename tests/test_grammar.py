"""Grammars: written readings read the same again, noise keeps the meaning, ugly replies are read or refused, never guessed."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.kinds import LABELS
from stepwell.critics import grammar, taxonomy
from stepwell.critics.grammar import KINDS, STATUSES, Detection, Reading, json_schema, read, render, render_json
from stepwell.critics.reading import Kind
from stepwell.errors import UnknownName, UsageError

CATEGORIES = [c.id for c in taxonomy.load().categories]
REPLIES = yaml.safe_load((Path(__file__).parent / "critic_replies.yaml").read_text(encoding="utf-8"))
EMPTY = Reading("unparseable")

# Texts as critics write them: any characters, several lines, code; without what the grammars themselves use.
WORDS = st.sampled_from(
    [
        "the agent",
        "`ls -la`",
        "a.py:",
        "2**3",
        "{x}",
        "[1]",
        "__init__",
        "naïve",
        "修正",
        "(again)",
        "-v",
        "| > # *",
        "3.",
        "no\tgood",
    ]
)
LINE = st.lists(
    WORDS | st.text(st.characters(codec="utf-8", exclude_characters="\r\n<:："), max_size=8), min_size=1, max_size=8
)
PROSE = LINE.map(" ".join).map(lambda s: f"because {s} so".strip())
TEXT = st.lists(PROSE, min_size=1, max_size=3).map("\n".join)


def one_line(text: str) -> str:
    return " ".join(text.split())


@st.composite
def steer(draw: st.DrawFn) -> Reading:
    chosen = draw(st.sets(st.sampled_from(CATEGORIES)))
    found = tuple(Detection(c, draw(TEXT), draw(TEXT)) for c in CATEGORIES if c in chosen)
    return Reading("ok", severity=draw(st.integers(0, 2)), detections=found, guidance=draw(TEXT))


@st.composite
def steps(draw: st.DrawFn) -> Reading:
    labels = {
        s: draw(st.sampled_from(LABELS))
        for s in draw(st.lists(st.integers(0, 400), min_size=1, max_size=9, unique=True))
    }
    rationales = {s: draw(PROSE.map(one_line)) for s in labels if draw(st.booleans())}
    return Reading("ok", labels=labels, rationales=rationales)


CRITIQUE = st.builds(
    lambda a, s, judgment: Reading("ok", guidance=f"Analysis:\n{a}\n\nImprovement suggestions:\n{s}", judgment=judgment),
    TEXT, TEXT, st.booleans(),
)  # fmt: skip
VERIFIER = st.builds(
    lambda yes, p: Reading("ok", judgment=yes, confidence=p if p is None or yes else 1 - p),
    st.booleans(), st.none() | st.floats(0.5, 1),
)  # fmt: skip
PAIR = st.builds(lambda first: Reading("ok", judgment=first), st.booleans())
READINGS = (steer(), steps(), CRITIQUE, VERIFIER, PAIR)
CASES = st.one_of(*(st.tuples(st.just(kind), of) for kind, of in zip(KINDS, READINGS, strict=True)))

NOISE: dict[str, Callable[[str], str]] = {
    "bold fields": lambda s: re.sub(r"(?m)^([ ]*)([A-Z][A-Za-z_ ]*|STEP \d+):", r"\1**\2:**", s),
    "bold names": lambda s: re.sub(r"(?m)^(\d+\. )([A-Za-z ]+):", r"\1**\2**:", s),
    "upper case": str.upper,
    "lower case": str.lower,
    "thought before": lambda s: f"<think>\nTASK_STATUS: On track\nSTEP 0: good\nNO\nOverall judgment: Correct\n</think>\n\n{s}",
    "thought before, never opened": lambda s: f"STEP 1: mistake, Overall judgment: Incorrect, YES\n</think>\n{s}",
    "thought after, never closed": lambda s: f"{s}\n<think>\nTASK_STATUS: On track\nSTEP 0: good\nSTEP 0: mistake",
    "fence": lambda s: f"```text\n{s}\n```",
    "prose and fence": lambda s: f"Here is my feedback:\n```\n{s}\n```\nI hope that this helps!",
    "prose before": lambda s: f"Sure, here is what you have asked me for.\n\n{s}",
    "end of turn": lambda s: f"<|im_start|>assistant\n{s}<|im_end|>\n<|im_start|>user\nSTEP 0: good\nSTEP 0: mistake",
    "windows": lambda s: s.replace("\n", "\r\n"),
    "no numbers": lambda s: re.sub(r"(?m)^\d+\. ", "", s),
    "bullets": lambda s: re.sub(r"(?m)^\s*(?=[A-Z0-9])", "- ", s),
    "blank lines": lambda s: s.replace("\n", "\n\n"),
    "full width": lambda s: s.replace(": ", "：").replace(":\n", "：\n"),
    "trailing text": lambda s: re.sub(
        r"(?m)^(TASK_STATUS: .*|Overall judgment: Incorrect|\d+\. .*No)$", r'"\1" (as far as can be seen)', s
    ).replace('"TASK_STATUS: ', 'TASK_STATUS: "').replace('"Overall judgment: ', 'Overall judgment: "'),
    "said twice": lambda s: f"{s}\n\n{s}",
}  # fmt: skip


def meaning(kind: Kind, reading: Reading) -> tuple[Any, ...]:
    """What must survive noise; texts may take on some of it."""
    found = tuple(d.category for d in reading.detections)
    return kind, reading.severity, found, reading.judgment, reading.confidence, dict(reading.labels)


@given(CASES)
def test_a_written_reading_is_read_as_it_was(case: tuple[Kind, Reading]) -> None:
    kind, reading = case
    text = render(kind, reading)
    assert read(kind, text, steps=list(reading.labels)) == reading
    document = orjson.dumps(render_json(kind, reading)).decode()
    assert read(kind, document, steps=list(reading.labels)) == reading


@pytest.mark.parametrize("noise", NOISE)
@settings(max_examples=40)
@given(case=CASES)
def test_noise_keeps_the_meaning(noise: str, case: tuple[Kind, Reading]) -> None:
    kind, reading = case
    again = read(kind, NOISE[noise](render(kind, reading)), steps=list(reading.labels))
    assert again.status in ("ok", "repaired"), again.problems
    assert meaning(kind, again) == meaning(kind, reading)


@given(CASES, st.randoms(use_true_random=False))
def test_shuffled_fields_keep_the_meaning(case: tuple[Kind, Reading], rng: Any) -> None:
    kind, reading = case
    parts = re.split(
        r"\n(?=\d+\. |[A-Z]+ ERRORS:|TASK_|OVERALL_|STEP |Improvement|Overall|PROB)", render(kind, reading)
    )
    rng.shuffle(parts)
    again = read(kind, "\n".join(parts), steps=sorted(reading.labels))
    assert again.status in ("ok", "repaired"), again.problems
    assert meaning(kind, again) == meaning(kind, reading)


@given(CASES, st.data())
def test_a_reply_cut_short_is_never_read_as_something_else(case: tuple[Kind, Reading], data: st.DataObject) -> None:
    kind, reading = case
    text = render(kind, reading)
    kept = text[: data.draw(st.integers(0, len(text)))]
    again = read(kind, kept, steps=list(reading.labels))
    if again.status == "unparseable":
        assert again == replace(EMPTY, problems=again.problems)
    elif kept == "B":  # of `BETTER`: a letter alone is an answer
        assert (kind, again.status, again.judgment) == ("pair", "repaired", False)
    elif kind == "verifier":  # the number can lose digits
        assert again.judgment == reading.judgment
    else:
        assert meaning(kind, again) == meaning(kind, reading)


MARKS = st.sampled_from(
    ["TASK_STATUS:", "On track", "DETECTED:", "Yes", "No", "STEP 0:", "good", "mistake", "Analysis:", "Overall judgment:", "{",
     "Correct", "Incorrect", "YES", "PROBABILITY: ", "0.7", "<think>", "</think>", "```", "THOUGHT:", "\n", "EVIDENCE:", '"',
     "}", "SPECIFICATION ERRORS:", "Step Repetition", "：", "**", "OVERALL_GUIDANCE:", "[",
     '{"steps": {"0": "good"}}', "\ud800", "1e9", "BETTER:", "A", "B", "tie"]
)  # fmt: skip


@given(st.sampled_from(KINDS), st.text() | st.lists(MARKS | st.text(max_size=3), max_size=40).map(" ".join))
def test_any_text_is_read_or_refused(kind: Kind, text: str) -> None:
    reading = read(kind, text, steps=[0])
    assert reading.status in ("ok", "repaired", "unparseable")
    assert bool(reading.problems) == (reading.status != "ok")
    if reading.status == "unparseable":
        assert reading == replace(EMPTY, problems=reading.problems)
    elif kind == "steps":
        assert set(reading.labels) == {0}
    elif kind == "pair" and reading.confidence == 0.5:
        assert reading.judgment is None, "a tie"
    else:
        assert (reading.severity if kind == "steer" else reading.judgment) is not None


@pytest.mark.parametrize(
    "piece",
    [
        "<think>",
        "{",
        '{"a":',
        "[" * 9,
        "- ",
        "**",
        "Yes",
        "detected ",
        "STEP 0-9: good ",
        "\t ",
        "``` \n",
        "correct /",
        "9",
        "\n",
        "task specificatoin violatins: no\n",
        "DETECTED: Yes\n",
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_takes_no_longer_than_its_length(kind: Kind, piece: str) -> None:
    text = piece * (100_000 // len(piece))
    start = time.process_time()
    assert read(kind, text, steps=range(10)).status == "unparseable"
    assert time.process_time() - start < 2


@pytest.mark.parametrize("case", REPLIES, ids=lambda case: case["name"])
def test_ugly_replies(case: dict[str, Any]) -> None:
    reading = read(case["kind"], case["text"], steps=case.get("steps", ()))
    said = {name: getattr(reading, name) for name in case["says"] if name != "detected"}
    if "detected" in case["says"]:
        said["detected"] = [d.category for d in reading.detections]
    assert said == case["says"], reading
    if "evidence" in case:
        assert [d.evidence for d in reading.detections] == case["evidence"]
    assert case.get("problem", "") in "; ".join(reading.problems)


def test_the_replies_cover_every_kind_and_status() -> None:
    counts = Counter((case["kind"], case["says"]["status"]) for case in REPLIES)
    assert len(REPLIES) >= 40
    assert set(counts) == {(kind, status) for kind in KINDS for status in ("ok", "repaired", "unparseable")}
    assert len({case["name"] for case in REPLIES}) == len(REPLIES)


@pytest.mark.parametrize("status", STATUSES)
def test_the_statuses_are_severities(status: str) -> None:
    groups = "".join(f"{group} ERRORS: None\n" for group in ("SPECIFICATION", "REASONING", "COORDINATION"))
    assert read("steer", f"{groups}TASK_STATUS: {status}\nOVERALL_GUIDANCE: x").severity == STATUSES.index(status)


def test_another_taxonomy_has_other_categories() -> None:
    few = replace(taxonomy.load(), categories=taxonomy.load().categories[:2])
    reading = Reading("ok", 2, (Detection("role_specification", "a", "b"),), "c")
    text = render("steer", reading, taxonomy=few)
    assert read("steer", text, taxonomy=few) == reading
    assert read("steer", text).status == "unparseable"
    assert list(json_schema("steer", taxonomy=few)["properties"]["categories"]["properties"]) == CATEGORIES[:2]


def test_what_cannot_be_written_is_refused() -> None:
    with pytest.raises(UsageError, match="free of the grammar's own fields"):
        render("steer", Reading("ok", 0, (), "Say TASK_STATUS: Needs correction"))
    with pytest.raises(UsageError, match="cannot be written as verifier"):
        render_json("verifier", Reading("ok", judgment=False, confidence=0.9))
    with pytest.raises(UsageError, match="cannot be written"):
        render("critique", Reading("unparseable"))
    with pytest.raises(UnknownName, match="allowed: critique, pair, steer, steps, verifier"):
        read("poem", "")  # type: ignore[arg-type]


def test_a_schema_asks_for_each_thing_once() -> None:
    schema = json_schema("steps", steps=[4, 5])["properties"]["steps"]
    assert schema["required"] == ["4", "5"]
    assert schema["additionalProperties"] is False
    for kind in KINDS:
        whole = json_schema(kind, steps=[0])
        assert whole["required"] == list(whole["properties"])
    assert read("steps", "STEP 0: good").problems == ("STEP 0 was not asked about", "no steps to label")


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_in_the_prompts_is_no_answer_itself(kind: Kind) -> None:
    assert read(kind, grammar.sketch(kind), steps=[0]).status == "unparseable"
