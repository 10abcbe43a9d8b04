"""Schemas: what a row is.

Belongs here: one Arrow schema a table, a sentence for every column, the closed set of event kinds with their payloads,
and the upcasters that bring payloads of earlier versions up to date. Does not belong here: reading, writing or computing
rows (`stepwell`). May import: pyarrow.
"""
