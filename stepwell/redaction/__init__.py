"""Redaction of what is stored: values, events and trajectories taken out of every file of a lake, and the proof.

Belongs here: what is to go, rewriting the tables, erasing old data files and what logs say of them, the scan of every byte.
Does not belong here: finding secrets at import (`stepwell.secrets`). May import: everything directly under `stepwell`,
`stepwell.secrets`, the completion cache of `stepwell.critics`, and what the journal of `stepwell.live` holds. No stage imports
it; `stepwell.health` asks its reports.
"""
