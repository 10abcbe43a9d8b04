"""Prompts: what critics are told, read from `stepwell/critics/prompts/*.yaml` or from any YAML file.

Belongs here: loading, checking and identifying them. Does not belong here: the messages a prompt becomes part of
(`context`), reading replies (`grammar`). A prompt is added by dropping a file into that folder or by naming its path. Its id
carries a hash of all it renders, its taxonomy's id included, so verdicts made under different wordings are told apart.

In `system`, `{categories}` becomes the taxonomy's names and definitions, `{recoveries}` the same with recovery intents,
and `{reply}` the form of the reply, as `grammar` reads it. `request` may have `{history}`, `{budget}` and `{n_steps}`, and
`budget` `{current_step}` and `{step_limit}`; these are filled in for each request. Other braces stay as they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml

from stepwell.critics import taxonomy as taxonomies
from stepwell.critics.grammar import KINDS, sketch
from stepwell.critics.reading import Kind as Kind
from stepwell.errors import StepwellError, UnknownName
from stepwell.ids import digest

PLACES = {
    "system": frozenset({"categories", "recoveries", "reply"}),
    "request": frozenset({"history", "budget", "n_steps"}),
    "budget": frozenset({"current_step", "step_limit"}),
}
_REQUIRED = ("name", "version", "kind", "description", "system", "request")
_FIELDS = frozenset({*_REQUIRED, "taxonomy", "budget"})
_PLACE = re.compile(r"\{([A-Za-z_]\w*)\}")


@dataclass(frozen=True)
class Prompt:
    """A named, versioned prompt; `system` is complete, `request` and `budget` keep their places (see the module)."""

    name: str
    version: int
    kind: Kind
    taxonomy: str | None
    description: str
    system: str
    request: str
    budget: str | None = None

    @property
    def id(self) -> str:
        """Identity recorded with every verdict made under it: name@version#hash."""
        of = taxonomies.load(self.taxonomy).id if self.taxonomy else None
        content = [self.name, self.version, self.kind, of, self.system, self.request, self.budget]
        return f"{self.name}@{self.version}#{digest(*content)[:12]}"


def _folder() -> Traversable:
    return files("stepwell.critics") / "prompts"


def names() -> list[str]:
    """Names of the prompts in the folder, sorted."""
    return sorted(f.name.removesuffix(".yaml") for f in _folder().iterdir() if f.name.endswith(".yaml"))


def load(name_or_path: str) -> Prompt:
    """A prompt by name, or from a YAML file by path.

    Raises UnknownName when there is neither, and StepwellError that lists everything wrong with the file.
    """
    path = Path(name_or_path)
    if name_or_path in names():
        source: Traversable = _folder() / f"{name_or_path}.yaml"
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        source = path
    else:
        act = "Name one of these, give the path of a YAML file, or drop one into stepwell/critics/prompts/."
        raise UnknownName("prompt", name_or_path, names(), act)
    try:
        document = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise StepwellError(f"prompt {name_or_path!r} is not YAML: {error}. Correct the file.") from error
    wrong = _problems(document, Path(source.name).stem)
    if wrong:
        raise StepwellError(
            f"prompt {name_or_path!r}: {'; '.join(wrong)}. Correct the file; stepwell/critics/prompts/ has examples."
        )
    return _prompt(document)


def _problems(document: Any, stem: str) -> list[str]:
    """Everything wrong with a prompt file's content."""
    if not isinstance(document, dict):
        return [f"it holds a {type(document).__name__}; it must be a mapping with {', '.join(_REQUIRED)}"]
    wrong = [f"{key} is missing" for key in _REQUIRED if key not in document]
    wrong += [f"{key} is no field; allowed: {', '.join(sorted(_FIELDS))}" for key in document if key not in _FIELDS]
    for key in sorted(_FIELDS - {"version"}):
        value = document.get(key)
        if (
            key in document
            and not (isinstance(value, str) and value.strip())
            and (key in _REQUIRED or value is not None)
        ):
            wrong.append(f"{key} is {value!r}, must be text")
    version, kind, taxonomy = (document.get(key) for key in ("version", "kind", "taxonomy"))
    if "version" in document and (type(version) is not int or version < 1):
        wrong.append(f"version is {version!r}, must be a whole number from 1")
    if document.get("name", stem) != stem:
        wrong.append(f"name is {document['name']!r}, must be the file's, {stem!r}")
    if isinstance(kind, str) and kind not in KINDS:
        wrong.append(f"kind is {kind!r}, allowed: {', '.join(KINDS)}")
    if taxonomy is not None and taxonomy not in taxonomies.names():
        wrong.append(f"taxonomy is {taxonomy!r}, allowed: {', '.join(taxonomies.names())}")
    if kind == "steer" and taxonomy is None:
        wrong.append(f"kind steer needs a taxonomy, one of {', '.join(taxonomies.names())}")
    texts = {key: text for key in PLACES if isinstance(text := document.get(key), str)}
    for key, text in texts.items():
        allowed = PLACES[key] - ({"categories", "recoveries"} if taxonomy is None else set())
        for place in sorted(set(_PLACE.findall(text)) - allowed):
            wrong.append(f"{{{place}}} in {key} is nothing to fill in; allowed: {', '.join(sorted(allowed))}")
    if ("budget" in texts) != ("{budget}" in texts.get("request", "")):
        wrong.append("budget and the place {budget} in request need each other; give both or neither")
    return wrong


def _prompt(document: dict[str, Any]) -> Prompt:
    taxonomy, kind = document.get("taxonomy"), document["kind"]
    values = {"reply": sketch(kind, taxonomies.load(taxonomy) if taxonomy else None)}
    if taxonomy:
        values |= {"categories": _categories(taxonomy, False), "recoveries": _categories(taxonomy, True)}
    system = _PLACE.sub(lambda place: values.get(place[1], place[0]), document["system"])
    texts = {key: text.strip() if (text := document.get(key)) else None for key in ("request", "budget", "description")}
    return Prompt(**{**document, "taxonomy": taxonomy, "system": system.strip(), **texts})


def _categories(taxonomy: str, recoveries: bool) -> str:
    """The taxonomy as a list, numbered as in the reply."""
    lines, number = [], 0
    for group, categories in taxonomies.load(taxonomy).groups.items():
        lines.append(f"{group.upper()}")
        for category in categories:
            number += 1
            lines.append(f"{number}. {category.name}: {category.definition}")
            lines += [f"   When detected, the recovery is: {category.recovery}"] if recoveries else []
    return "\n".join(lines)
