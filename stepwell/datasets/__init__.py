"""Datasets:  trajectories, steps and masks in, sealed training rows out.

Belongs here: recipes, one module a method, the build with its funnel, the seal, the verifier. Does not belong here:
training (jobs), deciding masks (curation). May import: `schemas`, `stepwell.errors`, `stepwell.lake`, `stepwell.log`
and the other modules directly under `stepwell`; never another stage.
"""
