"""The page of SQL: how to ask, the views, the macros and every question, written from the files of `sql/`.

    python -m stepwell.sql_page > docs/sql.md

Belongs here: turning them into Markdown. A test requires the committed page to be what this prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from stepwell.query import VIEWS, questions

_ASKING = """# SQL

Written by `python -m stepwell.sql_page > docs/sql.md` from `sql/`; do not edit. Columns of every table and view:
[schema.md](schema.md).

```console
$ stepwell sql "SELECT model, unnest(rate_of(resolved)) FROM trajectories GROUP BY model"
$ stepwell sql --question recover_after_mistake --format markdown
$ stepwell sql "SELECT * FROM verdicts WHERE label = 'mistake'" -o mistakes.parquet
$ stepwell sql --at 120 "SELECT count(*) FROM steps"    # everything as of version 120 of `events`
$ stepwell sql                                          # a shell; `stepwell sql < file.sql` runs a file
$ stepwell questions recover_after_mistake              # what it asks, its SQL, its columns
```

One SELECT at a time, and nothing but reading the lake: no other file, no network, no extension, no change of
settings, no temporary file. `--memory` (4GB) bounds what a query may hold, `--timeout` how long it may take. `--at N`
reads `events` at version N and the folds `trajectories` and `steps` as they stood then, and says so where a fold was
behind; `--at TABLE=N` pins one table. `-o FILE` tells the format from the name: .json, .csv, .md, .parquet.

In the shell a statement ends with a semicolon, over as many lines as it takes. Tab completes tables, columns,
questions and commands; control-C stops a query and not the shell; `.help` lists the commands (`.tables`, `.schema
NAME`, `.questions`, `.ask NAME`, `.format`, `.output FILE`, `.quit`). What was typed is kept in
`~/.stepwell_sql_history`.

Every table of the lake is a view, every dataset `dataset_<recipe>`, and each kind of event but retractions has a flat
view without what was retracted. Name the columns you want: a verdict's label is read without its raw text, an
action's command without the observations. `SELECT *` over `events` or `steps` reads all of the text.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join([_ASKING, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    yield "## Views"
    yield ""
    yield "| view | what is in it |"
    yield "|---|---|"
    for view in VIEWS.values():
        yield f"| `{view.name}` | {view.doc} |"
    yield ""
    yield "## Macros"
    yield ""
    text = (files("sql") / "_macros.sql").read_text(encoding="utf-8")
    for line in re.findall(r"^-- (.*)$", text, flags=re.MULTILINE):
        yield f"- {line.removeprefix('Macros the questions share. ')}"
    yield ""
    yield "## Questions"
    yield ""
    yield "| name | question |"
    yield "|---|---|"
    for name, question in questions().items():
        yield f"| [`{name}`](../sql/{name}.sql) | {question} |"


if __name__ == "__main__":
    print(page(), end="")
