"""The page of one trajectory, or of two side by side: one HTML file that needs nothing else.

Belongs here: putting data, script and style together so that nothing in the data can be anything but text. Does not belong
here: what is in the data (`document`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2
from markupsafe import Markup

from stepwell.display import HIDDEN, plain, policy
from stepwell.viewing.document import embedded

_SCRIPTS = ("text.js", "steps.js", "kinds.js", "article.js", "whole.js", "theme.js", "moving.js")


@dataclass(frozen=True)
class Page:
    """A page, the content security policy it is made for, and the HTTP status it is sent with."""

    html: str
    policy: str
    status: int = 200


def page(document: Mapping[str, Any], home: bool = False) -> Page:
    """The page of a document (`stepwell.viewing.document`); `home`: whether it links to the list of the server it comes from.

    Trajectories are hostile text: they stand in the page as escaped JSON, become text nodes and nothing else, characters that
    hide or turn text are written out, and the page forbids itself every request and every script and style but its own.
    """
    source, style = script(*_SCRIPTS), text("page.css")
    own = f"{policy(source, style)}; require-trusted-types-for 'script'"
    html = template("page.html").render(
        policy=own, title=" and ".join(run["id"] for run in document["runs"]), home=home,
        style=Markup(style), script=Markup(source), data=Markup(embedded({**document, "hidden": HIDDEN})),
    )  # fmt: skip
    return Page(html, own)


def script(*names: str) -> str:
    """Scripts of ours as one, with the data of the page before them where it has any."""
    own = "\n".join(text(name) for name in names)
    data = 'const data = JSON.parse(document.querySelector("#data").textContent);\n' if len(names) > 1 else ""
    return f'"use strict";\n(() => {{\n{data}{own}}})();'


@cache
def text(name: str) -> str:
    """A file of this package."""
    return (files("stepwell.viewing") / name).read_text(encoding="utf-8")


@cache
def template(name: str) -> jinja2.Template:
    """A template of this package; everything it is given is escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["plain"] = plain
    return environment.from_string(text(name))
