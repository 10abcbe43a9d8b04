"""What a job says to the Dagster that launched it on another machine: Pipes messages as small files in the lake both reach.

Does not belong here: launching (`assets.machines`, which reads them), and what is said (`report`).
"""

from __future__ import annotations

from typing import IO, Any

from dagster_pipes import (
    PipesBlobStoreMessageWriter,
    PipesBlobStoreMessageWriterChannel,
    PipesEnvVarParamsLoader,
    PipesMessageWriter,
)

from stepwell.folders import message
from stepwell.lake import Lake

_SECONDS = 1.0


class _Parts(PipesBlobStoreMessageWriterChannel):  # type: ignore[misc]  # dagster_pipes has no types here
    def __init__(self, lake: Lake, under: str) -> None:
        super().__init__(interval=_SECONDS)
        self.lake, self.under = lake, under

    def upload_messages_chunk(self, payload: IO[str], index: int) -> None:
        """Put one part."""
        self.lake.store.put(message(self.under, index), payload.read().encode())


class Mailbox(PipesBlobStoreMessageWriter):  # type: ignore[misc]
    """Messages as numbered files below a path of a lake."""

    def make_channel(self, params: dict[str, Any]) -> _Parts:
        """To where the launching side says."""
        return _Parts(Lake(params["lake"]), params["under"])


def writer() -> PipesMessageWriter | None:
    """A mailbox where the launching side reads one, else None: Pipes' own way."""
    return Mailbox() if "lake" in PipesEnvVarParamsLoader().load_messages_params() else None
