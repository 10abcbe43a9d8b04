"""The list of trajectories: a page of those that an SQL condition holds for.

Belongs here: the question asked and the page of its answer. Does not belong here: connections and limits (`stepwell.query`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup

from stepwell import query
from stepwell.display import policy
from stepwell.errors import UsageError
from stepwell.fold import refresh_table
from stepwell.lake import Lake, quoted
from stepwell.viewing.page import Page, script, template, text

SIZE = 50
"""Trajectories on one page of the list."""
LIMITS = query.Limits(seconds=20, memory="1GB", rows=SIZE)
ORDER = "corpus, task_id, trajectory_id"
FILTERS = (
    ("all", ""),
    ("resolved", "resolved"),
    ("not resolved", "NOT resolved"),
    ("with a mistake", "trajectory_id IN (SELECT trajectory_id FROM verdicts WHERE label = 'mistake')"),
    ("with feedback", "trajectory_id IN (SELECT trajectory_id FROM feedbacks WHERE mode = 'delivered')"),
    ("trained on", "trajectory_id IN (SELECT trajectory_id FROM datasets)"),
    ("tried more than once", "task_id IN (SELECT task_id FROM trajectories GROUP BY task_id HAVING count(*) > 1)"),
)
"""Conditions offered on the page, by name."""


@dataclass(frozen=True)
class Asked:
    """An SQL condition on `trajectories` (empty: all), the SQL they are ordered by, and how many come before the page."""

    where: str = ""
    order: str = ORDER
    first: int = 0

    @property
    def sql(self) -> str:
        """The one SELECT; line feeds keep a comment in a part from reaching the next."""
        return (
            "WITH tried AS (SELECT task_id, count(*) AS attempts FROM trajectories GROUP BY task_id)\n"
            "SELECT trajectory_id, corpus, task_id, agent, model, n_steps, n_failed_commands, resolved, exit_status, cost_usd, "
            "coalesce(attempts, 1) AS attempts, count(*) OVER () AS total\n"
            "FROM (SELECT * FROM trajectories) LEFT JOIN tried USING (task_id)\n"
            f"WHERE (\n{self.where or 'true'}\n)\nORDER BY\n{self.order or ORDER}\nLIMIT {SIZE} OFFSET {self.first}"
        )


def listed(lake: Lake, asked: Asked) -> tuple[list[dict[str, Any]], int]:
    """Rows of the page, and how many there are in all. Raises UsageError for what DuckDB refuses or a limit stops.

    Folds what `events` gained since, so that a rollout is in the list as soon as it is in the log.
    """
    refresh_table(lake, "trajectories")
    connection = query.connect(lake, limits=LIMITS)
    try:
        rows = query.run(connection, asked.sql, limits=LIMITS).to_pylist()
    finally:
        connection.close()
    if not rows and asked.first:
        return [], listed(lake, replace(asked, first=0))[1]
    return rows, rows[0]["total"] if rows else 0


def list_page(lake: Lake, asked: Asked) -> Page:
    """The list as a page, the last one where more is skipped than there is; what is wrong with the question stands on it."""
    problem, total = "", 0
    rows: list[dict[str, Any]] = []
    try:
        rows, total = listed(lake, asked)
        if total and not rows:
            asked = replace(asked, first=(total - 1) // SIZE * SIZE)
            rows, total = listed(lake, asked)
    except UsageError as error:
        problem = str(error)
    source, style = script("theme.js"), text("page.css")
    html = template("list.html").render(
        asked=asked, rows=rows, total=total, first=asked.first, size=SIZE, problem=problem, filters=FILTERS,
        style=Markup(style), script=Markup(source), link=lambda **parts: f"/?{urlencode(parts)}",
        view=lambda name: f"/view?{urlencode({'id': name})}", same=lambda task: f"task_id = {quoted(task)}",
    )  # fmt: skip
    return Page(html, policy(source, style, form="'self'"), 400 if problem else 200)
