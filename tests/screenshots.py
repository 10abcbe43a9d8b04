"""The docs' screenshots: trajectory pages (light, dark, two), a comparison, the docs' home, and the asset graph in Dagster.

python -m tests.screenshots            (all, into docs/screenshots; those of Dagster and of the comparison need a lake)
python -m tests.screenshots --lake LAKE graph compare home      (LAKE: what `make demo` made; it is copied first)
"""

from __future__ import annotations

import argparse
import base64
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser
from PIL import Image
from test_ui import ui

from stepwell.critics.run import judge_new
from stepwell.curation.masks import mask_new, rule_of
from stepwell.datasets.build import build
from stepwell.fold import refresh
from stepwell.lake import Lake
from stepwell.query import connect, run
from stepwell.recipe import Recipe
from stepwell.rendering import Renderer
from stepwell.rollout.runs import collect_pool
from stepwell.settings import Collect, Policy, World
from stepwell.viewing.document import document
from stepwell.viewing.page import page

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "screenshots"
BASE = "jobs/base"
MADE = ("events", "trajectories", "steps", "verdicts", "masks/srft", "datasets/srft", "comparisons")
NOISY = Policy(kind="noisy", n_tasks=12, attempts=2, mistake_rate=0.5, recover_rate=0.7)
MOST = """
SELECT trajectory_id FROM trajectories t ORDER BY resolved, (SELECT count(DISTINCT step) FROM verdicts v
WHERE v.trajectory_id = t.trajectory_id AND v.policy = 'rules@1' AND label = 'mistake') DESC, trajectory_id LIMIT 1
"""
"""The unresolved rollout with most mistakes: there is something to see on it."""
OTHER = """
SELECT trajectory_id FROM trajectories WHERE trajectory_id != $one
AND task_id = (SELECT task_id FROM trajectories WHERE trajectory_id = $one) ORDER BY resolved DESC, trajectory_id LIMIT 1
"""
"""Another attempt at its task, one that resolved it where there is one."""


def filled(lake: Lake) -> str:
    """Roll out, judge, mask, build; returns the trajectory to show."""
    assert collect_pool(lake, Collect(corpus="rollouts/pool", seed=3, policies=(NOISY,)), World(max_turns=10)).complete
    judge_new(lake)
    recipe = Recipe.model_validate({"name": "srft", "source": {"corpora": ["rollouts/pool"], "where": "true"},
        "mask": {"rule": "srft"}, "dataset": {"method": "srft", "held_out": 0.0}, "base_model": BASE})  # fmt: skip
    mask_new(lake, rule_of(recipe.mask))
    refresh(lake)
    build(lake, recipe, Renderer.load(ROOT / BASE), rule_of(recipe.mask).id)
    return str(run(connect(lake), MOST).column(0)[0].as_py())


def trajectories(browser: Browser, scratch: Path) -> None:
    """The page of a rollout, light and dark, and beside another attempt at its task."""
    shown = filled(lake := Lake(scratch / "lake"))
    made = page(document(lake, [shown]))
    (scratch / "a.html").write_text(made.html, encoding="utf-8")
    for theme in ("light", "dark"):
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        browser.open(scratch / "a.html")
        browser.until("document.querySelector('article') !== null")
        browser.value("document.querySelector('.training details').open = true")
        shoot(browser, f"trajectory-{theme}")
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    other = str(run(connect(lake), OTHER, {"one": shown}).column(0)[0].as_py())
    (scratch / "two.html").write_text(page(document(lake, [shown, other])).html, encoding="utf-8")
    browser.open(scratch / "two.html")
    browser.until("document.querySelectorAll('article').length > 1")
    shoot(browser, "trajectories-two")


def home(browser: Browser, scratch: Path) -> None:
    """The first page of the documentation."""
    command = [sys.executable, "-m", "mkdocs", "build", "-q", "-f", str(ROOT / "docs" / "site" / "mkdocs.yml")]
    subprocess.run([*command, "-d", str(scratch / "site")], check=True)
    browser.open(scratch / "site" / "index.html")
    shoot(browser, "docs-home")


def compared(browser: Browser, scratch: Path, lake: Path) -> None:
    """The report of a comparison."""
    command = [sys.executable, "-c", "from stepwell.cli import main; main()", "compare", "base", "all", "rft", "srft"]
    subprocess.run(
        [*command, "--lake", str(lake), "-o", str(scratch / "report.html")], check=True, stdout=subprocess.DEVNULL
    )
    browser.open(scratch / "report.html")
    shoot(browser, "comparison")


def graph(browser: Browser, scratch: Path, lake: Path) -> None:
    """The asset graph by groups, one recipe's branch, and a dataset with its plots, after a run on a copy of the lake."""
    folder = scratch / "project"
    folder.mkdir()
    os.environ["STEPWELL_LAKE"] = str(shutil.copytree(lake, folder / "lake"))
    with ui(folder) as url:
        settings = {**os.environ, "DAGSTER_HOME": str(folder / ".dagster")}
        select = " or ".join(f'key:"{key}"' for key in MADE)
        command = [sys.executable, "-m", "assets.materialize", "--select", select]
        subprocess.run(command, cwd=folder, env=settings, check=False, stdout=subprocess.DEVNULL)
        boxes = "document.querySelectorAll('foreignObject').length > 3"
        counts = "document.body.innerText.includes('trained_tokens')"
        groups = "locations/__repository__@assets.definitions/asset-groups"
        for name, path, width, wait in (
            ("dagster-lineage", "asset-groups", 1280, boxes),
            ("dagster-recipe", f"{groups}/3_recipe_srft/lineage", 2300, boxes),
            ("dagster-dataset", "assets/datasets/srft?view=overview", 1280, counts),
        ):  # fmt: skip
            browser.call(
                "Emulation.setDeviceMetricsOverride", width=width, height=1000, deviceScaleFactor=1, mobile=False
            )
            browser.call("Page.navigate", url=f"{url}/{path}")
            with suppress(AssertionError):  # then the picture shows what there is instead
                browser.until_here(lambda wait=wait: bool(browser.value(wait)), wait, 40)  # type: ignore[misc]
            time.sleep(8)  # the layout of a graph moves for a while
            shoot(browser, name)


def shoot(browser: Browser, name: str) -> None:
    """Write what is seen as a PNG of few colours, which keeps it small."""
    shot = browser.call("Page.captureScreenshot", format="png")
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("RGB")
    image.thumbnail((1400, 1400))
    image.quantize(128, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)


def main() -> None:
    """Take those that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="of trajectories, home, compare, graph; default: all")
    parser.add_argument("--lake", type=Path, default=Path("lake"), help="a lake made by make demo")
    options = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder)) as browser:
        browser.call("Emulation.setDeviceMetricsOverride", width=1280, height=1000, deviceScaleFactor=1, mobile=False)
        lake, scratch = options.lake.resolve(), Path(folder)
        takes = {
            "trajectories": lambda: trajectories(browser, scratch),
            "home": lambda: home(browser, scratch),
            "compare": lambda: compared(browser, scratch, lake),
            "graph": lambda: graph(browser, scratch, lake),
        }
        for name in options.names or takes:
            takes[name]()


if __name__ == "__main__":
    main()
