"""Token ids as pieces of text that can be shown one beside the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from stepwell.rendering.renderer import Renderer


def pieces(ids: Sequence[int], renderer: Renderer) -> Iterator[tuple[int, int, str]]:
    """(start, end, text) of every token; tokens that hold parts of one character stand together."""
    start = 0
    for i in range(len(ids)):
        text = renderer.tokenizer.decode(list(ids[start : i + 1]), skip_special_tokens=False)
        if text.endswith("\ufffd") and i + 1 < len(ids) and i - start < 8:
            continue
        yield start, i + 1, text
        start = i + 1
