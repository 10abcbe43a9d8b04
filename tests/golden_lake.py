"""The lake of the questions' golden answers: recorded once by the project's own rollouts and importers.

    python -m tests.golden_lake      (records it anew; then `make golden`, and review what changed)

What was recorded is `tests/golden/recorded/TABLE.parquet`, so that times, costs and ids are the same everywhere; verdicts,
masks and the folds are derived from it when it is opened. Pool rollouts, two DAgger iterations, steered arms and revision
loops are in it, a few imported files, and files that were rejected.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.tables import TABLES
from stepwell.batching import Crowd
from stepwell.critics.live import supervisor_of
from stepwell.importers.run import import_paths
from stepwell.lake import Lake
from stepwell.rollout.collect import collect
from stepwell.rollout.mixing import Mixing, Schedule
from stepwell.rollout.playing import Setting
from stepwell.rollout.policies import Scripted
from stepwell.rollout.policies.scripted import NoisyPolicy, OraclePolicy
from stepwell.rollout.revision import revise
from stepwell.rollout.runs import collect_pool, collect_steered, repairs
from stepwell.settings import Collect, Critic, Policy, Problems, Revision, RevisionArm, Steer, World

FOLDER = Path(__file__).parent / "golden" / "recorded"
RECORDED = ("events", "sources", "rejects")
WORLD = World(functions=1, bugs_max=1, max_turns=8)
NOISY = Policy(kind="noisy", n_tasks=6, attempts=2, mistake_rate=0.5, recover_rate=0.5)


def stored(lake: Lake) -> Lake:
    """Put what was recorded into an empty lake."""
    for name in RECORDED:
        rows = pq.read_table(FOLDER / f"{name}.parquet")
        whole = pa.Table.from_pylist(rows.to_pylist(), TABLES[name].schema)
        lake.append(lake.create(name), name, whole)
    return lake


def record(lake: Lake) -> None:
    """Roll out, import, and write down what the tables hold."""
    pool = Collect(corpus="rollouts/pool", seed=3, policies=(NOISY, Policy(kind="oracle", n_tasks=3)))
    assert collect_pool(lake, pool, WORLD).complete
    for iteration in (1, 2):
        mixing = Mixing(Schedule("constant", start=0.5), iteration)
        corpus = f"rollouts/d-{iteration}"
        wanted = repairs(WORLD, "train", 5, 10 * iteration, corpus=corpus, policy="d", run_id="d")

        def setting(crowd: Crowd, mixing: Mixing = mixing) -> Setting:
            return Setting(Scripted(NoisyPolicy(0.5)), WORLD.max_turns, teacher=Scripted(OraclePolicy()), mixing=mixing)

        assert collect(lake, corpus, wanted, setting).complete
    rules = Critic(kind="rules")
    steer = Steer(corpus="rollouts/s", agent=NOISY, critic=rules, n_tasks=4, k=2, prefix=2)
    steered = collect_steered(lake, steer, WORLD, lambda: supervisor_of(rules, steer.k))
    assert all(report.complete for report in steered.values())
    scripted = (RevisionArm(name="oracle", critic="oracle"), RevisionArm(name="placebo", critic="placebo"))
    each = RevisionArm(name="noisy", critic="noisy", wrong=0.3, vague=0.3, critiques=3, answer="each")
    for rounds, arms in ((2, scripted), (1, (each,))):
        loops = Revision(
            corpus=f"rollouts/r-{rounds}", problems=Problems(n=4), generator=Policy(kind="noisy", mistake_rate=0.6),
            samples=1, rounds=rounds, arms=arms, reruns=1,
        )  # fmt: skip
        revise(lake, loops, _none)
    _imported(lake)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in RECORDED:
        rows = lake.read(name).sort_by([(key, "ascending") for key in TABLES[name].key])
        rows = rows.replace_schema_metadata(None)
        pq.write_table(rows, FOLDER / f"{name}.parquet", compression="zstd", compression_level=19)


def _none(*_: object) -> NoReturn:
    raise AssertionError("every critic here is scripted")


def _imported(lake: Lake) -> None:
    """Imports of small files: a run of mini-swe-agent with costs, an ATIF session, and what is neither."""
    sys.path.insert(0, str(Path(__file__).parent))
    from format_examples import atif
    from trajectory_files import mini_1

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "imported"
        folder.mkdir()
        (folder / "one.traj.json").write_text(json.dumps(mini_1()))
        (folder / "two.traj.json").write_text(json.dumps(mini_1("acme__anvil-8", "The anvil is too small.")))
        (folder / "session.json").write_text(json.dumps(atif()))
        (folder / "empty.json").write_text("")
        (folder / "broken.json").write_text('{"messages": [')
        (folder / "other.json").write_text('{"weather": "fine"}')
        import_paths(lake, [folder])
    for name in ("sources", "rejects"):
        rows = lake.read(name).to_pylist()
        for row in rows:
            row["path"] = row["path"].removeprefix(f"{scratch}/")
            row["detail"] = row.get("detail", "").replace(f"{scratch}/", "")
        lake.replace(name, pa.Table.from_pylist(rows, TABLES[name].schema), {})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        record(Lake(Path(scratch) / "lake"))
