"""Rollout: where agents act, so that there is something to learn from.

Belongs here: three nouns that are swapped by adding a file, `environments` (where commands run), `policies` (who replies)
and `scaffolds` (how replies become commands); the episode they make up, its events, who acts when student and teacher are
mixed, and the collection of many at once; the sandbox and its jail; the embedded repair tasks.

Does not belong here: models in this process (`jobs`), masks, critics, datasets, or anything that decides what is learnt.

May import: the standard library, `schemas` and the modules directly under `stepwell`. Never another stage of `stepwell`,
torch or Dagster. What an agent writes is hostile: it is executed by `sandbox.py` and nowhere else.
"""
