"""Lineage: what a thing was made from (`trace`), what it has touched (`impact`), and both as pictures and open events.

Belongs here: following what every row already says about its origin. Does not belong here: anything that records it.
May import: what is directly under `stepwell`, `schemas`; no other stage. As SQL it is the view `lineage_edges`.
"""

from __future__ import annotations

from stepwell.lineage.impact import impact
from stepwell.lineage.trace import trace
from stepwell.lineage.tree import Tree, render_trace

__all__ = ["Tree", "impact", "render_trace", "trace"]
