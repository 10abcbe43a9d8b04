"""Contamination: whether what is trained on is, or repeats, what is evaluated on (METHODS.md K13, overlap K9).

Belongs here: the tasks of evaluation suites, detectors that compare training rows with them, the gate that stores what they
flag, and what the flags say about a resolve rate. Does not belong here: choosing rows (`datasets`), the asset check
(`assets`). May import: `schemas` and what lies directly under `stepwell`, so that every stage may use it; only `planned`
imports a stage, and is for none.
"""
