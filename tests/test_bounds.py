"""Bounds on free texts: every text has one, the longest document fits the reply, and what is no text is left alone."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from stepwell.critics import prompts
from stepwell.critics.bounds import LEAST, MOST, OF_FRAME, PER_TOKEN, bounded, text_limit
from stepwell.critics.context import Point, Request
from stepwell.critics.grammar import KINDS, Kind, json_schema, read
from stepwell.critics.model_critic import ModelCritic
from stepwell.errors import UsageError


def longest(schema: dict[str, Any]) -> Any:
    """The longest document a schema admits."""
    if "anyOf" in schema:
        return max((longest(part) for part in schema["anyOf"]), key=lambda d: len(json.dumps(d)))
    if "properties" in schema:
        return {name: longest(part) for name, part in schema["properties"].items()}
    if "enum" in schema:
        return max(schema["enum"], key=len)
    if "const" in schema:
        return schema["const"]
    return "x" * schema["maxLength"] if schema["type"] == "string" else 0.75


def texts(document: Any) -> list[str]:
    if isinstance(document, dict):
        return [text for value in document.values() for text in texts(value)]
    return [document] if isinstance(document, str) and set(document) == {"x"} else []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [400, 1200, 4096, 40_000])
def test_the_longest_document_fits_and_is_read(kind: Kind, tokens: int) -> None:
    plain = json_schema(kind, steps=range(7))
    schema = bounded(plain, text_limit(plain, tokens))
    document = longest(schema)
    found = texts(document)
    assert len(found) == {"steer": 25, "steps": 7, "critique": 2, "verifier": 0, "pair": 0}[kind]
    (size,) = {len(text) for text in found} or {LEAST}
    assert LEAST <= size <= MOST
    frame = len(json.dumps(document)) - sum(map(len, found))
    filled = size * (9 if kind == "steer" else len(found))
    if size > LEAST:
        assert frame / OF_FRAME + filled / PER_TOKEN <= tokens, "four categories of twelve, and all steps"
    if LEAST < size < MOST:
        assert frame / OF_FRAME + filled / PER_TOKEN > 0.9 * tokens, "no room is wasted"
    assert read(kind, json.dumps(document), steps=range(7)).status == "ok"


def test_only_free_texts_are_bounded_and_the_schema_is_otherwise_the_same() -> None:
    for kind in KINDS:
        plain = json_schema(kind, steps=[1, 2])
        limited = bounded(plain, 77)
        assert json.dumps(limited).replace(', "maxLength": 77', "") == json.dumps(plain)
        assert "maxLength" not in json.dumps(plain)
    assert text_limit(json_schema("steps", steps=range(1000)), 100) == LEAST


def test_a_structured_critic_is_bounded_unless_told_not_to_be_and_these_are_different_critics_replies() -> None:
    prompt = prompts.load("critique")
    critics = [ModelCritic(prompt, "m", structured=True, text_limit=limit) for limit in (None, 0, 50)]
    assert len({json.dumps(c.identity) for c in [ModelCritic(prompt, "m"), *critics]}) == 4
    assert ModelCritic(prompt, "m").identity == ModelCritic(prompt, "m", text_limit=9).identity, "no schema, no bounds"
    request = Request(Point(None, "trajectory", None, None), (), (), 0, (), ())
    schemas = [json.dumps(c.call(request, 0).schema) for c in critics]
    assert [found and int(found[1]) for found in (re.search(r'"maxLength": (\d+)', s) for s in schemas)] == [
        2000,
        None,
        50,
    ]
    with pytest.raises(UsageError, match="text limit of -1"):
        ModelCritic(prompt, "m", text_limit=-1)
