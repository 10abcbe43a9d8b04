"""Whether a lake may be written: who only reads one makes no lock in it and leaves its folds as they are."""

from __future__ import annotations

import os

from stepwell.lake import Lake


def writable(lake: Lake) -> bool:
    """Whether this user may write a folder that is there; of an object store nobody knows before trying."""
    return not lake.local or os.access(lake.uri, os.W_OK | os.X_OK)
