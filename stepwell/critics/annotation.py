"""Steps for people to judge: which are drawn, what of the trajectory is shown, and the page they are judged on.

Belongs here: sampling, the items, the page. Does not belong here: taking labels back (`people`). The draw is a function of
the events, the options and the seed alone. An item carries the id of its action and a hash of the whole step, so a label
can never be taken for another step. What a critic said is left out unless asked for: people judge blind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import jinja2
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from schemas.kinds import LABELS
from stepwell.critics.taxonomy import Taxonomy
from stepwell.critics.turns import Trajectory, Turn, trajectories
from stepwell.display import plain, policy
from stepwell.errors import UnknownName
from stepwell.ids import digest
from stepwell.log import live

COLUMNS = (
    "event_id",
    "corpus",
    "trajectory_id",
    "step",
    "kind",
    "task",
    "instruction",
    "action",
    "observation",
    "retraction",
)
"""Columns of `events` that `items` reads."""
Strata = Literal["label", "outcome", "critic"]
STRATA = ("label", "outcome", "critic")


@dataclass(frozen=True)
class Shown:
    """One step as it is shown; long texts are cut in the middle."""

    step: int
    text: str
    command: str | None
    output: str | None
    exit_code: int | None


@dataclass(frozen=True)
class Item:
    """One step to judge, with the task, the steps before it and those that follow; `says` is who said what, if shown."""

    trajectory_id: str
    step: int
    event_id: str
    content_hash: str
    corpus: str
    n_steps: int
    task: str
    here: Shown
    before: tuple[Shown, ...] = ()
    after: tuple[Shown, ...] = ()
    says: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The item as one JSON document."""
        return asdict(self)


def content_hash(turn: Turn) -> str:
    """Identity of what is judged: the action and what came back for it."""
    return digest(turn.text, turn.command, turn.output, turn.exit_code)


def sample(
    steps: Iterable[Mapping[str, Any]],
    n: int,
    seed: int,
    by: str = "label",
    said: Mapping[str, Mapping[str, Any]] | None = None,
    resolved: Mapping[str, bool | None] | None = None,
) -> list[str]:
    """Event ids of at most `n` actions, as evenly over the strata as their sizes allow, in an order that tells nothing.

    `steps` are rows of action events; `said` maps an action to the critic's verdict, `resolved` a trajectory to its outcome.
    Strata are the critic's label (`label`), the outcome of the trajectory (`outcome`) or the first category the critic
    found (`critic`). Raises UnknownName for another.
    """
    if by not in STRATA:
        raise UnknownName("way to stratify", by, STRATA, "Choose one of these with --by.")
    verdicts, outcomes = said or {}, resolved or {}
    stratum: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "label": lambda row: str(verdicts.get(row["event_id"], {}).get("label")),
        "outcome": lambda row: str(outcomes.get(row["trajectory_id"])),
        "critic": lambda row: next(
            (d["category"] for d in verdicts.get(row["event_id"], {}).get("detections") or () if d["category"]), "none"
        ),
    }
    groups: dict[str, list[str]] = {}
    for row in steps:
        groups.setdefault(stratum[by](row), []).append(row["event_id"])
    ranked = {name: sorted(ids, key=lambda e: digest("annotate", seed, e)) for name, ids in groups.items()}
    order = sorted(((i, name) for name, ids in ranked.items() for i in range(len(ids))))
    return sorted((ranked[name][i] for i, name in order[:n]), key=lambda e: digest("order", seed, e))


def items(
    events: pa.Table,
    chosen: Sequence[str],
    *,
    before: int = 10,
    after: int = 3,
    limit: int = 4000,
    says: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = None,
) -> list[Item]:
    """The chosen actions (event ids) as items, in that order; `events` holds their whole trajectories (columns COLUMNS).

    `limit` is the most characters of one text; `says` maps an action to what raters said of it, by rater.
    """
    tasks = _tasks(events)
    found: dict[str, Item] = {}
    wanted = set(chosen)
    for trajectory in trajectories(events):
        for i, turn in enumerate(trajectory.turns):
            if turn.action_id in wanted:
                found[turn.action_id] = _item(trajectory, i, tasks, before, after, limit, says or {})
    return [found[e] for e in chosen if e in found]


def page(entries: Sequence[Item], taxonomy: Taxonomy, raters: Sequence[str] = ()) -> str:
    """One HTML page that needs nothing else: to judge on, or with `raters` to read where they differ.

    Trajectories are hostile text: everything is escaped, characters that hide or turn text are written out, and the page
    forbids itself every request and every script but its own.
    """
    source = (files("stepwell.critics") / "annotate.js").read_text(encoding="utf-8")
    style = (files("stepwell.critics") / "annotate.css").read_text(encoding="utf-8")
    name = digest([e.event_id for e in entries], taxonomy.id)
    html = _template().render(
        items=entries, taxonomy=taxonomy, labels=LABELS, export=name, script=Markup(source),
        mode="read" if raters else "judge", style=Markup(style), policy=policy(source, style),
    )  # fmt: skip
    return html.encode("utf-8", "backslashreplace").decode("utf-8")


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    return environment.from_string((files("stepwell.critics") / "annotate.html").read_text(encoding="utf-8"))


def _tasks(events: pa.Table) -> dict[str, str]:
    """Trajectory -> its statement, or else the last message from the user before it began."""
    found: dict[str, tuple[int, str]] = {}
    rows = live(events).select(["trajectory_id", "kind", "task", "instruction"])
    for row in rows.filter(pc.is_in(rows.column("kind"), pa.array(["task", "instruction"]))).to_pylist():
        payload = row[row["kind"]]
        text = payload.get("statement") or payload.get("content")
        rank = 10**6 if row["kind"] == "task" else payload["position"] or 0
        if text and (row["kind"] == "task" or (payload["role"] == "user" and not payload["is_demo"])):
            found[row["trajectory_id"]] = max(found.get(row["trajectory_id"], (-1, "")), (rank, text))
    return {trajectory: text for trajectory, (_, text) in found.items()}


def _item(
    of: Trajectory, i: int, tasks: Mapping[str, str], before: int, after: int, limit: int,
    says: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> Item:  # fmt: skip
    turn = of.turns[i]
    shown = [_shown(t, limit) for t in of.turns[max(0, i - before) : i + 1 + after]]
    at = min(i, before)
    return Item(
        of.trajectory_id, turn.step, turn.action_id, content_hash(turn), of.corpus, len(of.turns),
        _cut(tasks.get(of.trajectory_id, ""), 2 * limit), shown[at], tuple(shown[:at]), tuple(shown[at + 1 :]),
        says.get(turn.action_id, {}),
    )  # fmt: skip


def _shown(turn: Turn, limit: int) -> Shown:
    command = turn.command if turn.command and not _gives(turn.text, turn.command.strip()) else None
    output = None if turn.output is None else _cut(turn.output, limit)
    return Shown(turn.step, _cut(turn.text, limit), command and _cut(command, limit), output, turn.exit_code)


def _gives(text: str, command: str) -> bool:
    """Whether a text gives a command on lines of its own or in tags; the same words in a sentence are talk."""
    at = text.find(command) if command else -1
    while at >= 0:
        after = at + len(command)
        before = text[text.rfind("\n", 0, at) + 1 : at].strip()
        rest = text[after:].partition("\n")[0].strip()
        if (before[-1:] in ("", ">", ":") or command[:1] == "<") and rest[:1] in ("", "<"):
            return True
        at = text.find(command, at + 1)
    return False


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    head = limit * 2 // 3
    return f"{text[:head]}\n[... {len(text) - limit:,} characters left out ...]\n{text[len(text) - limit + head :]}"
