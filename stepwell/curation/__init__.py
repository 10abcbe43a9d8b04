"""Curation:  verdicts and outcomes in, mask events out.

Belongs here: mask rules, filters, splits, deduplication, contamination checks. Does not belong here: judging steps
(critics), rendering and tokens (datasets). May import: `schemas`, `stepwell.errors`, `stepwell.lake`, `stepwell.log`
and the other modules directly under `stepwell`; never another stage.
"""
