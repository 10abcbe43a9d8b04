"""A dataset built from nothing, and again after 1% new trajectories: time, their ratio, and peak memory of each.

    python -m tests.bench.dataset_builds [TRAJECTORIES]

Trajectories have 30 to 50 steps; 25,000 are a million. Every build runs in a process of its own, whose seconds are those of
`build` alone. The last line builds the larger log from nothing as well: the hash must be that of the build that went on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stepwell.lake import Lake
from tests.bench.long_log import CORPUS, write

BUILD = f"""
import json, resource, sys, time
from stepwell.datasets.build import build
from stepwell.lake import Lake
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
settings = {{"name": "bench", "source": {{"corpora": ["{CORPUS}"]}}, "dataset": {{"method": "all", "max_length": 65536}}}}
renderer = Renderer.load({str(Path(__file__).parents[2] / "jobs" / "base")!r})
started, busy = time.monotonic(), time.process_time()
built = build(Lake(sys.argv[1]), Recipe.model_validate(settings), renderer, "all@1")
peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
told = {{"wall": time.monotonic() - started, "cpu": time.process_time() - busy, "mb": peak // 1024, "hash": built.hash}}
print(json.dumps({{**told, "rows": built.n_rows, "tokens": built.n_tokens, "derived": built.n_derived,
                  "steps": built.funnel[0]["steps"]}}))
"""


def built(what: str, lake: Path) -> dict[str, Any]:
    """Build in a process of its own and print what it took."""
    done = subprocess.run([sys.executable, "-c", BUILD, str(lake)], check=True, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    print(
        f"{what}: {told['wall']:.1f} s wall, {told['cpu']:.1f} s CPU, peak {told['mb']} MB; {told['steps']} steps, "
        f"{told['rows']} rows, {told['tokens']} tokens, {told['derived']} trajectories derived",
        flush=True,
    )
    return told


def main() -> None:
    """Measure and print."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as scratch:
        first, other = Path(scratch) / "lake", Path(scratch) / "other"
        print(f"{n} trajectories: {write(Lake(first), range(n))} events", flush=True)
        full = built("full", first)
        write(Lake(first), range(n, n + n // 100))
        again = built("after 1% more", first)
        other.mkdir()
        (other / "events").symlink_to(first / "events")
        anew = built("full, with them", other)
        assert anew["hash"] == again["hash"] != full["hash"]
        print(
            f"ratio {again['wall'] / anew['wall']:.3f} of wall, {again['cpu'] / anew['cpu']:.3f} of CPU; the hashes are equal"
        )


if __name__ == "__main__":
    main()
