"""The schema page is what the declarations say."""

from __future__ import annotations

from pathlib import Path

from schemas.kinds import KINDS
from schemas.tables import DATASET, TABLES
from stepwell.query import VIEWS
from stepwell.schema_page import page

PAGE = Path(__file__).parent.parent / "docs" / "schema.md"


def test_the_committed_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run `python -m stepwell.schema_page > docs/schema.md`"


def test_every_column_of_every_table_view_and_kind_has_its_sentence() -> None:
    text = page()
    for table in (*TABLES.values(), *VIEWS.values(), DATASET):
        assert table.doc in text
        for column in table.columns:
            assert column.doc.endswith("."), f"{table.name}.{column.name}"
            assert column.name in KINDS or column.doc in text
    for kind in KINDS.values():
        assert f"### Kind: {kind.name}" in text
        assert all(f"`{column.name}`" in text and column.doc in text for column in kind.columns)
