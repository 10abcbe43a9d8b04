"""Maintenance and redaction, of which one runs at a time: both handle files that no version of a table names.

A compaction writes files that nobody may see before its commit, and a redaction deletes what no version names any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from stepwell.errors import LakeError
from stepwell.lake import Lake

PATIENCE = 600.0
"""Seconds that one waits for the other to end."""


@contextmanager
def undisturbed(
    lake: Lake, say: Callable[[str], None] = lambda text: None, patience: float = PATIENCE
) -> Iterator[None]:
    """Maintain or redact a local lake alone, waiting up to `patience` seconds for who does it now; `say` is told of that.

    Raises LakeError when the other does not end in time. An object store has no such lock.
    """
    until, told = time.monotonic() + patience, False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lake.alone("maintenance-or-redaction", "maintaining or redacting"))
                break
            except LakeError as error:
                if time.monotonic() >= until:
                    raise
                if not told:
                    say(str(error))
                told = True
        yield
