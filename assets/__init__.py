"""Assets: what exists and what it is made from.

Belongs here: the asset graph, its checks, resources and the recipe factory; asset functions of about five lines over pure
functions. Does not belong here: how anything is computed (`stepwell`, `jobs`). May import: `stepwell`, `schemas`, `sql`
and dagster, which nothing else imports.
"""
