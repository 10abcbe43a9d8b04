"""Fuzz every importer with coverage as the guide: `make fuzz MINUTES=10`.

    python -m tests.fuzz.fuzz_importers --minutes 10 --output build/fuzz

A worker process runs atheris (libFuzzer with coverage of `stepwell.importers`) on inputs varied by `mutation`, checks the
`properties` of each, and imports one in SHARE of them, BATCH at a time, into a real lake. What does not hold is written once
per property and place to `findings/`, and the run goes on; a worker that dies or hangs leaves its input there and is started
again. The corpus is kept, so that the next run begins where this one ended. `report.json` has minutes, executions, coverage
and findings; the exit status is 1 when something was found.
`--replay FILE...` checks inputs again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

SHARE, BATCH = 4, 100
_MOST_BYTES = 1 << 16
_COVERED = re.compile(r"cov: (\d+) ft: (\d+) corp: (\d+)")


def main(arguments: list[str]) -> int:
    """Run for some minutes, or check inputs again; 1 when a property did not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--output", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seconds-of-worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--replay", nargs="+", type=Path, help="inputs to check again")
    asked = parser.parse_args(arguments)
    if asked.replay:
        return _replay(asked.replay)
    if asked.seconds_of_worker is not None:
        _work(asked.output, asked.seconds_of_worker)
    return _run(asked.output, asked.minutes)


def _run(output: Path, minutes: float) -> int:
    """Keep a worker going until the time is over, and say what came of it."""
    from tests.fuzz.mutation import seeds

    for name in ("corpus", "findings"):
        (output / name).mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (output / "corpus" / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    begun, died, executions = time.monotonic(), 0, 0
    covered = ("0", "0", "0")
    while (left := minutes * 60 - (time.monotonic() - begun)) > 5:
        command = [sys.executable, "-m", "tests.fuzz.fuzz_importers", "--output", str(output)]
        with (output / "worker.log").open("a+") as log:
            at = log.seek(0, 2)
            code = subprocess.run([*command, "--seconds-of-worker", str(int(left))], stdout=log, stderr=log).returncode
            log.seek(at)
            covered = max([covered, *_COVERED.findall(log.read())], key=lambda c: int(c[0]))
        executions += _executed(output)
        died += code != 0
        if code != 0:
            print(f"the worker ended with {code}; its input is in {output / 'findings'}", flush=True)
    findings = sorted(p.stem for p in (output / "findings").glob("*.json"))
    findings += sorted(p.name for p in (output / "findings").glob("*-*") if not p.suffix)
    report = {
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "executions": executions,
        "edges covered": int(covered[0]),
        "corpus": len(list((output / "corpus").iterdir())),
        "workers that died": died,
        "findings": findings,
    }
    (output / "report.json").write_text(json.dumps(report, indent=1))
    print(json.dumps(report, indent=1))
    return 1 if findings else 0


def _executed(output: Path) -> int:
    try:
        return int((output / "executions").read_text())
    except (OSError, ValueError):
        return 0


def _work(output: Path, seconds: int) -> None:
    """Run atheris; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["stepwell.importers"]):
        from tests.fuzz import mutation, properties
    (output / "executions").write_text("0")
    done, batch = 0, dict[str, bytes]()

    def one(data: bytes) -> None:
        nonlocal done
        done += 1
        body, format = mutation.split(data)
        _noting(output, data, lambda: properties.check(body, format))
        if done % SHARE == 0:
            batch[f"{len(batch)}.json"] = body
            (output / "executions").write_text(str(done))
        if len(batch) == BATCH:
            packed = b"".join(len(b).to_bytes(4) + b for b in batch.values())
            _noting(output, packed, lambda: properties.check_import(dict(batch), keep_secrets=done % 3 > 0), "batch")
            batch.clear()

    def vary(data: bytes, most: int, seed: int) -> bytes:
        return mutation.vary(data, Random(seed), lambda body: bytes(atheris.Mutate(body, most - 1)))[:most]

    options = [f"-max_total_time={seconds}", f"-max_len={_MOST_BYTES}", "-len_control=0", "-timeout=180"]
    options += [
        "-rss_limit_mb=3000",
        "-report_slow_units=180",
        f"-artifact_prefix={output / 'findings'}/",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(output / "corpus")], one, custom_mutator=vary)
    atheris.Fuzz()


def _noting(output: Path, data: bytes, check: Any, kind: str = "input") -> None:
    """Run a check; write what it raised to `findings/`, the smallest input of each property and place."""
    try:
        check()
    except Exception as error:
        name = f"{kind}-{_signature(error)}"
        kept = output / "findings" / f"{name}.bin"
        if not kept.exists() or len(data) < kept.stat().st_size:
            kept.write_bytes(data)
            told = {"error": f"{type(error).__name__}: {error}"[:2000], "trace": traceback.format_exc()[-4000:]}
            kept.with_suffix(".json").write_text(json.dumps(told, indent=1))


def _signature(error: Exception) -> str:
    """Property, or exception and the line that raised it; digits of what was met left out."""
    frame = [f for f in traceback.extract_tb(error.__traceback__) if f.name != "_hold"][-1]
    place = f"{Path(frame.filename).stem}-{frame.lineno}"
    met = re.sub(r"[^A-Za-z' ]+", "", str(error))[:80]
    digest = hashlib.sha1(met.encode()).hexdigest()[:6]
    return re.sub(r"\W+", "-", f"{getattr(error, 'name', None) or type(error).__name__}-{place}-{digest}")[:120]


def _replay(paths: list[Path]) -> int:
    from tests.fuzz import mutation, properties

    broken = 0
    for path in paths:
        data = path.read_bytes()
        try:
            if path.name.startswith("batch-"):
                properties.check_import(dict(_unpacked(data)), keep_secrets=True)
            else:
                properties.check(*mutation.split(data))
            print(f"{path.name}: holds")
        except Exception:
            broken += 1
            print(f"{path.name}:\n{traceback.format_exc()}")
    return 1 if broken else 0


def _unpacked(data: bytes) -> list[tuple[str, bytes]]:
    files = []
    while data:
        n = int.from_bytes(data[:4])
        files.append((f"{len(files)}.json", data[4 : 4 + n]))
        data = data[4 + n :]
    return files


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
