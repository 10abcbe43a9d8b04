"""Bounds on the free texts of a reply's JSON schema, so that a constrained reply ends before it is cut off.

Belongs here: how long a text may be. Does not belong here: what a reply must hold (`form_steer`, `form_steps`,
`form_judgment`). Without bounds a small model can fill the first text with repetition until the reply's length is used up.
"""

from __future__ import annotations

from typing import Any

PER_TOKEN, OF_FRAME = 2.0, 1.75
"""Characters a token stands for in free text (prose has four, repetition down to one) and in the frame round it."""
OPTIONAL = 1 / 3
"""Share of the texts that a document may leave out which are expected to be there."""
LEAST = 24
"""Characters left to a text however little room there is; where all of them are used the reply may still be cut."""
MOST = 2000
"""Characters a text gets however much room there is."""


def text_limit(schema: dict[str, Any], tokens: int) -> int:
    """Characters each free text may have so that a document with all texts at that length fits a reply of `tokens`.

    Texts that a document may leave out (evidence of a category that is not detected) count for a third.
    """
    frame, texts = _extent(schema)
    room = (tokens - frame / OF_FRAME) * PER_TOKEN
    return max(LEAST, min(MOST, int(room // max(texts, 1))))


def bounded(schema: dict[str, Any], limit: int) -> dict[str, Any]:
    """The same schema with every free text bounded to `limit` characters."""
    if schema.get("type") == "string" and "enum" not in schema:
        return schema | {"maxLength": limit}
    made = dict(schema)
    if "properties" in schema:
        made["properties"] = {name: bounded(part, limit) for name, part in schema["properties"].items()}
    if "anyOf" in schema:
        made["anyOf"] = [bounded(part, limit) for part in schema["anyOf"]]
    return made


def _extent(schema: dict[str, Any]) -> tuple[float, float]:
    """Characters of the longest document beside its free texts, and how many of these it has; choices count in part."""
    if "anyOf" in schema:
        frame, texts = max((_extent(part) for part in schema["anyOf"]), key=lambda extent: extent[::-1])
        return frame, texts * OPTIONAL
    if "properties" in schema:
        parts = {name: _extent(part) for name, part in schema["properties"].items()}
        return 2 + sum(len(name) + 6 + n for name, (n, _) in parts.items()), sum(texts for _, texts in parts.values())
    if "enum" in schema:
        return 2 + max(len(value) for value in schema["enum"]), 0
    return (2, 1) if schema.get("type") == "string" else (8, 0)
