"""Secrets: what in a text is one, and the marker that takes its place before anything is written.

Belongs here: detection (bundled rules of Kingfisher, the rules beside this file, exact values), the forms a value takes in
other texts, and redaction of parsed input, bytes and events. Does not belong here: what is stored already
(`stepwell.redaction`). May import: `stepwell.lake`, `stepwell.event`, `stepwell.errors`; never a stage.
"""
