"""Rendering: chat messages and step weights in, token ids and labels out, with proof that they agree.

The model's own chat template is rendered once over the whole conversation. Where each assistant turn lies in that text is
found by rendering the same conversation with markers in place of the replies and checking that the pieces between the
markers, put together with the replies, give the very same text. Tokens are mapped to turns by the tokenizer's offsets.
Only `transformers`' template engine and `tokenizers` are used, so nothing here loads torch.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from stepwell.errors import RenderError, UsageError
from stepwell.ids import sha256

IGNORE = -100
VERSION = "stepwell-rendering@1"
Message = dict[str, Any]
_MARK = "\u2af7{}\u2af8"


@dataclass(frozen=True)
class Rendered:
    """Tokens of one conversation: `input_ids` and `labels` (same length), and (start, end) token ranges of each reply."""

    input_ids: list[int]
    labels: list[int]
    spans: list[tuple[int, int]]

    @property
    def n_trained(self) -> int:
        """Positions in the loss."""
        return sum(label != IGNORE for label in self.labels)


class Renderer:
    """The tokenizer and chat template of a model directory."""

    def __init__(self, tokenizer: Tokenizer, template: str, special: dict[str, str], source: str) -> None:
        self.tokenizer, self.template, self.special, self.source = tokenizer, template, special, source

    @classmethod
    def load(cls, directory: str | Path) -> Renderer:
        """Read a Hugging Face model directory; raises UsageError when tokenizer.json or the template is missing."""
        root = Path(directory)
        if not (root / "tokenizer.json").is_file():
            raise UsageError(f"{str(directory)!r} has no tokenizer.json; name a model directory saved by transformers.")
        config = _json(root / "tokenizer_config.json")
        template = (root / "chat_template.jinja").read_text() if (root / "chat_template.jinja").is_file() else None
        template = template or config.get("chat_template")
        if not isinstance(template, str):
            raise UsageError(f"{str(directory)!r} has no chat template; add chat_template.jinja to it.")
        names = {k: v for k, v in {**_json(root / "special_tokens_map.json"), **config}.items() if k.endswith("_token")}
        special = {k: v["content"] if isinstance(v, dict) else v for k, v in names.items() if isinstance(v, str | dict)}
        return cls(Tokenizer.from_file(str(root / "tokenizer.json")), template, special, str(directory))

    @cached_property
    def hashes(self) -> dict[str, str]:
        """What a dataset must record to be reproduced: hashes of tokenizer and template, and the version of this code."""
        return {
            "tokenizer_hash": sha256(self.tokenizer.to_str()),
            "template_hash": sha256(self.template),
            "renderer": VERSION,
        }

    @cached_property
    def _added(self) -> list[str]:
        return [t.content for t in self.tokenizer.get_added_tokens_decoder().values() if t.special]

    def text(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation as the model's template writes it; `prompt` adds the header of the next reply."""
        rendered, _ = render_jinja_template(
            [list(messages)], chat_template=self.template, add_generation_prompt=prompt, **self.special
        )
        return str(rendered[0])

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt for the next reply."""
        return list(self.tokenizer.encode(self.text(messages, prompt=True), add_special_tokens=False).ids)

    def encode(self, messages: Sequence[Message], weights: Sequence[float]) -> Rendered:
        """Tokens and labels of a conversation; `weights` has one entry per assistant message that is no demo, 0 or 1.

        In the loss: the replies of weight 1 with the special token that closes them, and nothing else. Raises RenderError
        when template and tokens cannot be shown to agree with the replies.
        """
        places = [i for i, m in enumerate(messages) if m["role"] == "assistant" and not m.get("is_demo")]
        if len(places) != len(weights):
            raise RenderError(
                f"{len(places)} assistant messages but {len(weights)} weights; give one weight per reply."
            )
        text = self.text(messages)
        ranges = self._ranges(messages, places, text)
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        ids, offsets = list(encoding.ids), list(encoding.offsets)  # each access to these copies the whole list
        labels = [IGNORE] * len(ids)
        spans: list[tuple[int, int]] = []
        cursor = 0
        for (low, high), weight in zip(ranges, weights, strict=True):
            while cursor < len(ids) and offsets[cursor][1] <= low:
                cursor += 1
            start = cursor
            while cursor < len(ids) and offsets[cursor][0] < high:
                if offsets[cursor][0] < low or offsets[cursor][1] > high:
                    raise RenderError(
                        f"token {cursor} lies across the edge of a reply; template and tokenizer do not fit."
                    )
                cursor += 1
            spans.append((start, cursor))
            if weight:
                labels[start:cursor] = ids[start:cursor]
        return Rendered(ids, labels, spans)

    def _ranges(self, messages: Sequence[Message], places: Sequence[int], text: str) -> list[tuple[int, int]]:
        """Character ranges of the replies in the rendered text, closing token included."""
        marked = [dict(m) for m in messages]
        for n, i in enumerate(places):
            marked[i]["content"] = _MARK.format(n)
        pieces, rest = [], self.text(marked)
        for n in range(len(places)):
            piece, found, rest = rest.partition(_MARK.format(n))
            if not found:
                raise RenderError(
                    f"the template of {self.source!r} does not write reply {n} as it is; it cannot be masked."
                )
            pieces.append(piece)
        ranges, at = [], 0
        for n, i in enumerate(places):
            content, after = str(messages[i]["content"]), pieces[n + 1] if n + 1 < len(places) else rest
            at += len(pieces[n])
            reply = next((r for r in (content, content.strip()) if text.startswith(r + after, at)), None)
            if reply is None or not text.startswith(pieces[n], at - len(pieces[n])):
                raise RenderError(
                    f"the template of {self.source!r} writes reply {n} differently here; it cannot be masked."
                )
            ranges.append((at, at + len(reply) + len(self._closing(after))))
            at += len(reply)
        if at + len(rest) != len(text):
            raise RenderError(f"the template of {self.source!r} writes more after the last reply of this conversation.")
        return ranges

    def _closing(self, after: str) -> str:
        for token in self._added:
            if after.startswith(token):
                return token
        raise RenderError(
            f"no special token closes a reply: the template of {self.source!r} goes on with {after[:40]!r}."
        )

    def trained_text(self, rendered: Rendered) -> list[str]:
        """What the loss covers, decoded: one string per run of trained positions."""
        runs: list[list[int]] = []
        previous = IGNORE
        for label in rendered.labels:
            if label != IGNORE:
                if previous == IGNORE:
                    runs.append([])
                runs[-1].append(label)
            previous = label
        return [self.tokenizer.decode(run, skip_special_tokens=False) for run in runs]


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
