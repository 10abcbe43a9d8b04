"""Rollout: the embedded world in which agents act, so that the loop closes without a server, a network or a GPU.

Belongs here: the sandbox and its jail, the task families and the bugs seeded in them, the environment that runs
commands and grades, the scaffold that turns text into commands and results into text, the scripted policies (oracle,
noisy) and the episode they play. Nothing here knows a model: a model is one more `Policy`.

Does not belong here: sampling from models (`jobs/`), turning episodes into events for the log beyond plain values,
masks, critics, datasets, or anything that decides what is learnt.

May import: the standard library, `schemas`, `stepwell.errors` and the log. Never another stage of `stepwell`, torch
or Dagster. What an agent writes is hostile: it is executed by `sandbox.py` and nowhere else.
"""
