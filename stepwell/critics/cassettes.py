"""Cassettes: what a model answered, kept in a readable file and played back where the model is not.

Belongs here: the two backends, and what makes two calls the same. Does not belong here: asking (`stepwell.chat`), keeping
replies from one run to the next (`cache`). A cassette is JSON lines, one a call, sorted by key, to be committed and
reviewed: the key, what was asked in short, the completion. The key covers all that decides a reply, so a call that
changed in any way is not in the cassette, and playing says so instead of answering with something else's reply.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import orjson

from stepwell.chat import Backend, Call, Completion, Failure
from stepwell.critics.cache import completion_of
from stepwell.errors import UsageError
from stepwell.ids import digest

_DEFAULTS = {field.name: field.default for field in fields(Call)}


def cassette_key(model: str, call: Call) -> str:
    """128-bit hex digest of the model and of everything in a call that is not at its default."""
    asked = {name: value for name, value in asdict(call).items() if value != _DEFAULTS[name]}
    return digest("cassette@1", model, asked)


class Recorder:
    """A backend that asks another one and keeps every completion in a file at once; failures are not kept.

    Completions the file holds already stay, those of calls made again are replaced. Raises UsageError for a file that is
    no cassette.
    """

    def __init__(self, file: str | Path, model: str, backend: Backend) -> None:
        self.file, self.model, self.backend = Path(file), model, backend
        self.concurrency = backend.concurrency
        self.entries = _read(self.file) if self.file.exists() else {}

    async def complete(self, call: Call) -> Completion | Failure:
        """Ask, and keep what was answered."""
        answer = await self.backend.complete(call)
        if isinstance(answer, Completion):
            key, last = cassette_key(self.model, call), str(call.messages[-1]["content"])
            kept = {k: v for k, v in asdict(answer).items() if v is not None and v != ()}
            asked = {"messages": len(call.messages), "max_tokens": call.max_tokens, "ends": last[-60:]}
            self.entries[key] = {"key": key, "model": self.model, "asked": asked, "completion": kept}
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with self.file.open("ab") as lines:
                lines.write(orjson.dumps(self.entries[key], option=orjson.OPT_APPEND_NEWLINE))
        return answer

    async def close(self) -> None:
        """Sort the file."""
        await self.backend.close()
        if self.entries:
            lines = (orjson.dumps(self.entries[key], option=orjson.OPT_APPEND_NEWLINE) for key in sorted(self.entries))
            self.file.write_bytes(b"".join(lines))


class Player:
    """A backend that answers from a cassette; a call that is not in it ends the run, and says how to record it.

    Raises UsageError for a file that is not there or no cassette.
    """

    concurrency = 16

    def __init__(self, file: str | Path, model: str) -> None:
        self.file, self.model = Path(file), model
        if not self.file.is_file():
            raise UsageError(f"no cassette {str(file)!r}; record one with `stepwell judge ... --record {file}`.")
        self.entries = _read(self.file)

    async def complete(self, call: Call) -> Completion | Failure:
        """The completion recorded for this very call."""
        key = cassette_key(self.model, call)
        if key not in self.entries:
            why = f"no reply of {self.model!r} to call {key} ({len(call.messages)} messages) among the {len(self.entries)}"
            return Failure("fatal", f"{why} in {self.file}: the call has changed since. Record it again with --record.")
        return completion_of(self.entries[key]["completion"])

    async def close(self) -> None:
        """Nothing to release."""


def _read(file: Path) -> dict[str, Any]:
    entries = {}
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            entry = orjson.loads(line)
            completion_of(entry["completion"])
            entries[str(entry["key"])] = entry
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise UsageError(
                f"line {number} of {str(file)!r} is no entry of a cassette ({error}); record it again, or mend the line."
            ) from error
    return entries
