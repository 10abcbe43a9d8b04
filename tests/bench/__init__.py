"""Benchmarks: whole runs side by side with a peer or a limit, reported as ratios; never timed tests."""
