"""Viewing: trajectories as pages, and the server that shows those of a lake on this machine.

Belongs here: what of a lake a page is made of, the page itself, the list of trajectories, serving them on loopback. Does not
belong here: judging steps or annotating them (`critics`), what a dataset trains on (`datasets`), SQL (`stepwell.query`).
A page is a view of events: it is given the events that hold and works out the rest itself. May import everything directly
under `stepwell`, `rendering` and `schemas`, and no stage.
"""
