"""Curation: trajectories, verdicts and outcomes in; selections and mask events out.

Belongs here: mask rules, filters, splits, deduplication, balance and mix. Does not belong here: judging steps
(critics), rendering and tokens (datasets). May import: `schemas`, `stepwell.errors`, `stepwell.lake`, `stepwell.log`
and the other modules directly under `stepwell`; never another stage.
"""
