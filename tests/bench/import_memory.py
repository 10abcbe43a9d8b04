"""Peak memory of an import by the number of files: the same files, ten times as many.

    python -m tests.bench.import_memory [FILES]

Every import runs in a process of its own; also of a second import, which knows all files.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.bench.import_peers import IMPORT, measured
from tests.bench.import_steps import write_files


def main() -> None:
    """Import n and 10 n files, each twice, and print peak memory and ratios."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    peaks: dict[str, list[int]] = {"first": [], "again": []}
    with tempfile.TemporaryDirectory() as scratch:
        for many in (n, 10 * n):
            folder = Path(scratch) / str(many)
            folder.mkdir()
            write_files(folder, many)
            for which, found in peaks.items():
                command = [sys.executable, "-c", IMPORT, str(Path(scratch) / f"lake-{many}"), str(folder)]
                told = measured(f"{which}, {many} files", command, Path(scratch))
                assert told is not None
                found.append(told[1])
    for which, (few, much) in peaks.items():
        print(f"{which}: {n} files {few} MB, {10 * n} files {much} MB, ratio {much / few:.2f}")


if __name__ == "__main__":
    main()
