"""Screenshots of the trajectory page: real rollouts of the project's own environment, judged by rules, in light and dark.

python -m tests.screenshots      (writes docs/screenshots/trajectory-light.png and trajectory-dark.png)
"""

from __future__ import annotations

import base64
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from browser import Browser

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
NOISY = Policy(kind="noisy", n_tasks=12, attempts=2, mistake_rate=0.5, recover_rate=0.7)
MOST = """
SELECT trajectory_id FROM trajectories t ORDER BY resolved, (SELECT count(DISTINCT step) FROM verdicts v
WHERE v.trajectory_id = t.trajectory_id AND v.policy = 'rules@1' AND label = 'mistake') DESC, trajectory_id LIMIT 1
"""
"""The unresolved rollout with most mistakes: there is something to see on it."""


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


def main() -> None:
    """Take both."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        lake = Lake(Path(scratch) / "lake")
        made = page(document(lake, [filled(lake)]))
        (Path(scratch) / "a.html").write_text(made.html, encoding="utf-8")
        with Browser(Path(scratch)) as browser:
            size = {"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
            browser.call("Emulation.setDeviceMetricsOverride", **size)
            for theme in ("light", "dark"):
                chosen = [{"name": "prefers-color-scheme", "value": theme}]
                browser.call("Emulation.setEmulatedMedia", features=chosen)
                browser.open(Path(scratch) / "a.html")
                browser.until("document.querySelector('article') !== null")
                browser.value("document.querySelector('.training details').open = true")
                shot = browser.call("Page.captureScreenshot", format="png")
                (FOLDER / f"trajectory-{theme}.png").write_bytes(base64.b64decode(shot["data"]))


if __name__ == "__main__":
    main()
