"""Rendering: chat messages and step weights in, token ids and labels out, with proof that they agree.

Belongs here: what a model's chat template makes of a conversation, where each reply lies in it, and its tokens. Does not
belong here: which replies are learnt from (`datasets`). Only `transformers`' template engine and `tokenizers` are used, so
nothing here loads torch. May import `errors` and `ids`.
"""

from __future__ import annotations

from stepwell.rendering.renderer import IGNORE, VERSION, Rendered, Renderer
from stepwell.rendering.template import Message

__all__ = ["IGNORE", "VERSION", "Message", "Rendered", "Renderer"]
