"""Hostile text on pages and terminals of ours: what a page forbids itself, and characters that hide or turn text, written out.

Belongs here: what every page shares. Does not belong here: any page.
"""

from __future__ import annotations

import base64
import hashlib
import re

from rich.markup import escape

HIDDEN: tuple[tuple[int, int], ...] = (
    (0x00, 0x08), (0x0B, 0x1F), (0x7F, 0x9F), (0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5),
    (0x180B, 0x180F), (0x200B, 0x200F), (0x2028, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xD800, 0xDFFF),
    (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFFB), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF),
)  # fmt: skip
"""Code points, first and last of each range, that control, hide or turn text; tab and line feed are not among them."""
_HIDDEN = re.compile("[" + "".join(f"{chr(a)}-{chr(b)}" for a, b in HIDDEN) + "]")


def plain(text: str | None) -> str:
    """Text with control, invisible and direction-changing characters written out as their code points."""
    return _HIDDEN.sub(lambda m: f"⟨U+{ord(m[0]):04X}⟩", (text or "").replace("\r\n", "\n"))


def terminal(text: str | None) -> str:
    """Text for a terminal, where rich takes markup: as `plain` writes it, and no markup."""
    return escape(plain(text))


def policy(script: str = "", style: str = "", form: str = "'none'") -> str:
    """The content security policy of a page with one script and one style of its own: it asks for nothing else."""
    scripts, styles = (f"'sha256-{_hash(text)}'" if text else "'none'" for text in (script, style))
    own = f"default-src 'none'; script-src {scripts}; style-src {styles}"
    return f"{own}; base-uri 'none'; form-action {form}"


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
