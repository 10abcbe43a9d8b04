"""Critics:  events of a trajectory in, verdict events out.

Belongs here: deterministic step rules, taxonomies and prompts, parsers, the audit of a critic against ground truth.
Does not belong here: deciding what is trained on (curation), choosing trajectories (datasets). May import: `schemas`,
`stepwell.errors`, `stepwell.lake`, `stepwell.log` and the other modules directly under `stepwell`; never another
stage.
"""
