"""Health: what a lake holds and how fresh it is (`status`), and what is wrong with it or this machine (`doctor`).

Belongs here: looking, and naming the next act. Does not belong here: repairing anything (`maintenance`, `redaction`,
`fold`), how it is printed (`cli`). May import: what is directly under `stepwell`, `schemas`, and what a check is about.
"""
