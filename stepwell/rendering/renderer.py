"""Tokens of a conversation: the template's text through the model's tokenizer, and which of them are in the loss.

Belongs here: tokens and labels. Does not belong here: what the template writes where (`template`).

Special tokens that some content spells out are not special: text of a tool, a user or a model never becomes a token that
opens or closes a message. Where there are none, the ids are those of `transformers`' `apply_chat_template`.
"""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import NFC

from stepwell.errors import RenderError, UsageError
from stepwell.ids import sha256
from stepwell.rendering.template import Message, Template, Written, mapped

IGNORE = -100
VERSION = "stepwell-rendering@2"


@dataclass(frozen=True)
class Rendered:
    """Tokens of one conversation: `input_ids` and `labels` (same length), and (start, end) token ranges of each reply."""

    input_ids: list[int]
    labels: list[int]
    spans: list[tuple[int, int]]

    @property
    def n_trained(self) -> int:
        """Positions in the loss."""
        return len(self.labels) - self.labels.count(IGNORE)


class Renderer:
    """The tokenizer and chat template of a model directory."""

    def __init__(self, tokenizer: Tokenizer, template: str, special: dict[str, str], source: str) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
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
    def special_ids(self) -> dict[int, str]:
        """Ids of the special tokens, and how they are written."""
        return {i: t.content for i, t in self.tokenizer.get_added_tokens_decoder().items() if t.special}

    @cached_property
    def closing_ids(self) -> list[int]:
        """Tokens that end a reply: the one the template closes it with, and the tokenizer's end of text where it is another."""
        end = self.tokenizer.token_to_id(self.special.get("eos_token") or "")
        ends = set() if end is None else {end}
        with suppress(RenderError):  # a template that cannot be learnt from can still be asked
            ends |= {number for number, token in self.special_ids.items() if token == self._template.frame.closing}
        return sorted(ends)

    @cached_property
    def _template(self) -> Template:
        return Template(self.template, self.special, list(self.special_ids.values()), self.source)

    @cached_property
    def _literally(self) -> Tokenizer | None:
        """The tokenizer for which special tokens are text like any other; None when text depends on what is before it."""
        added = [t for t in self.tokenizer.get_added_tokens_decoder().values() if t.special]
        if not added or any(t.lstrip or t.rstrip or t.single_word for t in added):
            return None
        made = Tokenizer.from_str(self.tokenizer.to_str())
        made.encode_special_tokens = True
        sample, (number, token) = " a b", min(self.special_ids.items())
        ids = made.encode(sample, add_special_tokens=False).ids
        whole = self.tokenizer.encode(token.join([sample] * 3), add_special_tokens=False).ids
        return made if whole == [*ids, number, *ids, number, *ids] else None

    def text(self, messages: Sequence[Message], *, prompt: bool = False) -> str:
        """The conversation as the model's template writes it; `prompt` adds the header of the next reply."""
        return self._template.text(messages, prompt=prompt)

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the prompt for the next reply."""
        return self._tokens(self._template.write(messages, prompt=True))[0]

    def encode(self, messages: Sequence[Message], weights: Sequence[float]) -> Rendered:
        """Tokens and labels of a conversation; `weights` has one entry per assistant message that is no demo, 0 or 1.

        In the loss: the replies of weight 1, all the template writes of them after the prompt for them, with the special
        token that closes them, and nothing else. Raises RenderError, its reason before the first colon, when template and
        tokens cannot be shown to agree with the replies.
        """
        demos = [bool(m.get("is_demo")) for m in messages if m["role"] == "assistant"]
        if demos.count(False) != len(weights):
            raise RenderError(
                f"{demos.count(False)} assistant messages but {len(weights)} weights; give one weight per reply."
            )
        written = self._template.write(messages)
        ranges = self._template.replies(messages, written)
        ids, token_at = self._tokens(written, [place for lows, high in ranges for place in (*lows, high)])
        labels = [IGNORE] * len(ids)
        spans = [self._span(token_at, *r) for r, demo in zip(ranges, demos, strict=True) if not demo]
        for (start, end), weight in zip(spans, weights, strict=True):
            if weight:
                labels[start:end] = ids[start:end]
        return Rendered(ids, labels, spans)

    def _span(self, token_at: Callable[[int], int | None], lows: Sequence[int], high: int) -> tuple[int, int]:
        """Token range of a reply that ends at `high` and starts at the first of `lows` where a token starts."""
        start, end = next((t for t in map(token_at, lows) if t is not None), None), token_at(high)
        if start is None or end is None:
            raise RenderError(
                f"a token lies across the edge of a reply: template and tokenizer of {self.source!r} do not fit at one of "
                f"characters {lows} and {high}."
            )
        return start, end

    def _tokens(self, written: Written, asked: Sequence[int] = ()) -> tuple[list[int], Callable[[int], int | None]]:
        """Token ids, and a function from a character of `asked` to the token that starts there (None: it is inside one).

        The text is cut at the template's special tokens, as the tokenizer itself does first of all. Offsets cost time, so
        only pieces that somebody asks about get them.
        """
        text, tokenizer = written.text, self._literally
        if tokenizer is None:
            if written.literals:
                raise RenderError(
                    f"special tokens spelt out in content cannot be kept apart: the tokenizer of {self.source!r} writes a "
                    "text otherwise after a special token."
                )
            encoding = self.tokenizer.encode(text, add_special_tokens=False)
            offsets = encoding.offsets
            return encoding.ids, lambda place: _starting(offsets, place)
        cuts = [(m.start(), m.end()) for m in self._template.special.finditer(text)]
        starts, ends = [0, *(high for _, high in cuts)], [*(low for low, _ in cuts), len(text)]
        pieces = [written.restore(text[low:high]) for low, high in zip(starts, ends, strict=True)]
        inside = sorted({n for place in asked if starts[n := bisect_right(starts, place) - 1] < place})
        others = sorted(set(range(len(pieces))) - set(inside))
        encoded = dict(
            zip(inside, tokenizer.encode_batch([pieces[n] for n in inside], add_special_tokens=False), strict=True)
        )
        aligned = dict(encoded)
        plain = tokenizer.encode_batch_fast([pieces[n] for n in others], add_special_tokens=False)
        encoded.update(zip(others, plain, strict=True))
        ids: list[int] = []
        firsts: list[int] = []
        for n in range(len(pieces)):
            if n:
                low, high = cuts[n - 1]
                ids.append(self._numbers[text[low:high]])
            firsts.append(len(ids))
            ids += encoded[n].ids

        def token_at(place: int) -> int | None:
            n = bisect_right(starts, place) - 1
            if place == starts[n]:
                return firsts[n]
            if place == ends[n]:
                return firsts[n] + len(encoded[n].ids)
            token = aligned[n].char_to_token(place - starts[n])
            if token is None:  # no token has it: what a tokenizer leaves out
                found = _starting(aligned[n].offsets, place - starts[n])
                return None if found is None else firsts[n] + found
            chars = aligned[n].token_to_chars(token)
            return firsts[n] + token if chars and chars[0] == place - starts[n] else None

        return ids, token_at

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {token: number for number, token in self.special_ids.items()}

    def normal(self, value: Any) -> Any:
        """A JSON value with its texts as the tokenizer keeps them: some compose accents (NFC)."""
        normalizer = self.tokenizer.normalizer
        return mapped(value, normalizer.normalize_str) if isinstance(normalizer, NFC) else value

    def decodes(self, ids: Sequence[int], messages: Sequence[Message]) -> bool:
        """Whether tokens are, decoded, what the template writes of a conversation."""
        return bool(self.tokenizer.decode(list(ids), skip_special_tokens=False) == self.normal(self.text(messages)))

    def trained_text(self, rendered: Rendered) -> list[str]:
        """What the loss covers, decoded: one string per run of trained positions."""
        return [self.tokenizer.decode(run, skip_special_tokens=False) for run in runs(rendered.labels)]


def _starting(offsets: Sequence[tuple[int, int]], place: int) -> int | None:
    """The token that starts at a character, of tokens with these (start, end) characters."""
    found = bisect_left(offsets, place, key=lambda o: o[0])
    return None if found and offsets[found - 1][1] > place else found


def runs(labels: Sequence[int]) -> list[list[int]]:
    """The trained tokens, one list for each unbroken run of them."""
    found: list[list[int]] = []
    previous = IGNORE
    for label in labels:
        if label != IGNORE:
            if previous == IGNORE:
                found.append([])
            found[-1].append(label)
        previous = label
    return found


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
