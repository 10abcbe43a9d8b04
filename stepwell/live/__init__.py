"""Live: data that comes while it is made. Files that grow are followed, events and spans are received over HTTP.

Belongs here: when a file is read again and how much of it, the server with its journal and its queue, validation of events
given from outside, trajectories that nobody ends, the OpenAPI description, a small client. Does not belong here: what a file
means (`stepwell.importers` reads it, and the import run writes it), passing on model calls (`stepwell.proxy`), terminal output.

May import: aiohttp, watchfiles, pydantic, `schemas`, the modules directly under `stepwell`, `stepwell.secrets` and, alone of
all stages, `stepwell.importers`. No stage imports it.
"""
