"""Jobs: what runs on another machine.

Belongs here: training and evaluation programs run as `python -m jobs.NAME --recipe jobs/recipes/X.yaml`, and the recipes
themselves; inputs come from argv, Dagster Pipes only reports. Does not belong here: choosing or masking data (`stepwell`).
May import: `stepwell`, `schemas`, `sql` and torch, TRL, vLLM, which nothing else imports.
"""
