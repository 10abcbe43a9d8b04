"""Evaluation: attempts in, numbers with their uncertainty out.

Belongs here: intervals, paired tests, comparisons, evaluation rows. Does not belong here: generating text with a
model (jobs), acting in environments (rollout). May import: `schemas`, `stepwell.errors`, `stepwell.lake`,
`stepwell.log`, `stepwell.contamination` and the other modules directly under `stepwell`; never another stage.
"""
