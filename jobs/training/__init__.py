"""What every training job shares: checks before the start, settings, a watched trainer, checkpoints, cards.

Belongs here: what holds for supervised, preference and reinforcement training alike. Does not belong here: one method's
loss or data (a module of `jobs` each). May import: `stepwell`, `schemas`, `sql`, torch, transformers, TRL, peft; the modules
that import torch at their top (`trainer`) are imported once everything that can be refused has been.
"""
