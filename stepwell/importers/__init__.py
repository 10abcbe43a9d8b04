"""Importers:  files of other harnesses in, events out.

Belongs here: one module a format with its boundary in the docstring, sniffing, the outcome join, the import run. Does
not belong here: writing rows in any other way than through the log; judging or filtering what was imported. May
import: `schemas`, `stepwell.errors`, `stepwell.lake`, `stepwell.log` and the other modules directly under `stepwell`;
never another stage.
"""
