"""Checks of this machine: Python and packages, the sandbox, memory and scratch space, the environment, Dagster's home."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from stepwell.code import ROOT, code_version
from stepwell.errors import SandboxError
from stepwell.health.finding import Finding, note, ok, problem
from stepwell.rollout.sandbox import detect

LOCK = ROOT / "requirements.lock"
_GB = 1 << 30
_EXTRAS = {
    "dagster": "make ui and the asset graph",
    "jobs": "stepwell train and evaluate",
    "mini": "rollouts in containers",
}
_PATHS = {"STEPWELL_VLLM_PYTHON": "run make vllm, or unset it.", "STEPWELL_IMPORT": "name files or folders that exist."}


def check_machine(environment: Mapping[str, str] = os.environ, lock: Path = LOCK) -> list[Finding]:
    """Everything that does not depend on a lake."""
    return [*_python(), *_packages(lock), *_sandbox(), *_room(), *_settings(environment), *_dagster(environment)]


def _python() -> Iterator[Finding]:
    told = f"Python {sys.version.split()[0]} on {sys.platform}, stepwell {code_version()}"
    if sys.platform != "linux":
        yield note("python", told, "rollouts need Linux; everything else runs.")
    else:
        yield ok("python", told)


def _packages(lock: Path) -> Iterator[Finding]:
    """What is declared must be there; what the lock says was tested together."""
    missing: dict[str, list[str]] = {}
    for text in requires("stepwell") or []:
        needed = Requirement(text)
        for extra in ("", *_EXTRAS):
            if (needed.marker is None and extra) or (needed.marker and not needed.marker.evaluate({"extra": extra})):
                continue
            found = _installed(needed.name)
            if found is None or not needed.specifier.contains(found.base_version, prereleases=True):
                missing.setdefault(extra, []).append(f"{needed.name}{needed.specifier} (here: {found or 'none'})")
    if "" in missing:
        yield problem("packages", ", ".join(missing.pop("")), "pip install --no-deps -r requirements.lock")
    else:
        yield ok("packages", "every declared dependency is here")
    for extra, names in sorted(missing.items()):
        yield note(
            "packages", f"{_EXTRAS[extra]}: {', '.join(names)}", f"pip install 'stepwell[{extra}]', if you need it."
        )
    if not lock.is_file():
        return
    pinned = dict(line.split("==") for line in lock.read_text(encoding="utf-8").split())
    other = [
        f"{name} {here or 'none'} (lock: {wanted})"
        for name, wanted in sorted(pinned.items())
        if (here := _installed(name)) is None or here.base_version != Version(wanted).base_version
    ]
    if other:
        told = f"{len(other)} of {len(pinned)} differ from the lock: {', '.join(other[:5])}"
        yield note("lock", told, "pip install --no-deps -r requirements.lock gives what was tested.")
    else:
        yield ok("lock", f"all {len(pinned)} packages are those of requirements.lock")


def _installed(name: str) -> Version | None:
    try:
        return Version(version(name))
    except PackageNotFoundError:
        return None


def _sandbox() -> Iterator[Finding]:
    try:
        mode = detect()
    except SandboxError as error:
        yield note("sandbox", str(error), "without a jail only --unsafe runs agents' commands; nothing else needs one.")
        return
    yield ok("sandbox", f"mode {mode}: agents' commands are jailed")
    engines = [name for name in ("docker", "podman", "singularity", "apptainer") if shutil.which(name)]
    if engines:
        yield ok("containers", f"{', '.join(engines)} on the path")
    else:
        yield note("containers", "no container engine on the path", "install one for SWE-bench-style tasks only.")


def _room() -> Iterator[Finding]:
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file() and (kb := re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())):
        told = f"{int(kb[1]) / (1 << 20):.1f} GB of memory to be had, {os.cpu_count()} cores"
        few = int(kb[1]) < 2 << 20
        yield note("memory", told, "training and vLLM need more.") if few else ok("memory", told)
    scratch = tempfile.gettempdir()
    free = shutil.disk_usage(scratch).free
    told = f"{free / _GB:.1f} GB free in {scratch}"
    yield problem("scratch", told, "make room, or set TMPDIR.") if free < _GB // 4 else ok("scratch", told)


def _settings(environment: Mapping[str, str]) -> Iterator[Finding]:
    for name, act in _PATHS.items():
        gone = [p for p in environment.get(name, "").split(os.pathsep) if p and not Path(p).exists()]
        if gone:
            yield problem("environment", f"{name} names {', '.join(gone)}, which is not there", act)
    if environment.get("STEPWELL_UNSAFE") == "1":
        yield note(
            "environment", "STEPWELL_UNSAFE is set: no jail is asked for", "unset it, unless every agent is trusted."
        )


def _dagster(environment: Mapping[str, str]) -> Iterator[Finding]:
    home = environment.get("DAGSTER_HOME")
    if not home:
        yield note(
            "dagster",
            "DAGSTER_HOME is not set",
            "make ui sets it; for dagster by hand: export DAGSTER_HOME=$PWD/.dagster",
        )
    elif not Path(home).is_absolute() or not Path(home).is_dir():
        yield problem(
            "dagster", f"DAGSTER_HOME is {home!r}; allowed: the absolute path of a folder", "mkdir it, or run make ui."
        )
    elif not (Path(home) / "dagster.yaml").is_file():
        yield problem(
            "dagster",
            f"no dagster.yaml in {home}",
            "link the project's: ln -s ../dagster.yaml .dagster/, or run make ui.",
        )
    elif not os.access(home, os.W_OK):
        yield problem("dagster", f"{home} cannot be written by this user", "change its owner.")
    else:
        yield ok("dagster", f"home {home}")
