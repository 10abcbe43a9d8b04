"""Reading the seal of a dataset: what the commit that made its rows visible says they were made from.

Does not belong here: sealing (`stepwell.datasets.sealing`).
"""

from __future__ import annotations

from stepwell.lake import Lake

_OF_DELTA = ("operation", "engineInfo", "clientVersion")


def seal_of(lake: Lake, table: str, version: int | None = None) -> tuple[int, dict[str, str]] | None:
    """(version, seal) of a dataset table at a version (default: its current one); None when nothing was sealed by then.

    The seal is that of the last commit that recorded one: maintenance rewrites files and changes no row.
    """
    handle = lake.table(table)
    if handle is None:
        return None
    wanted = handle.version() if version is None else version
    commits = (c for c in lake.commits(table) if c["version"] <= wanted and "dataset_hash" in c)
    found = max(commits, key=lambda c: int(c["version"]), default=None)
    if found is None:
        return None
    return wanted, {k: v for k, v in found.items() if isinstance(v, str) and k not in _OF_DELTA}
