"""Exporters: trajectories and sealed datasets out, in the conventions other tools read.

Belongs here: one module a format with its boundary in the docstring, reading whole trajectories in constant memory, files
that are there whole or not at all, the export run. Does not belong here: deciding what is learnt (masks, datasets) or
changing anything in the lake. May import: `schemas` and the modules directly under `stepwell`; never another stage.
"""
