"""The recording proxy: a harness points its base URL here, and its model calls become events, with no change to it.

Belongs here: the addresses that say whose call it is, passing requests and replies through, reading OpenAI-shaped replies
and streams, turning calls into the events of a trajectory and back into exact prompts, and the journal that keeps a call
before its reply is complete. Does not belong here: calling models on our own behalf (`stepwell.chat`), parsing what a
harness makes of a reply, grading, critics, terminal output.

May import: aiohttp, `schemas`, the log and the lake. Never another stage of `stepwell`, torch or Dagster. What passes
through is hostile text: it is kept, never executed, and no key is kept.
"""
