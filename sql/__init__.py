"""Questions: one `.sql` file a question, the question as its first line; and the views they are asked of.

Belongs here: text only, read with importlib.resources. Does not belong here: Python that runs a query (`stepwell.query`).
May import: nothing.
"""
