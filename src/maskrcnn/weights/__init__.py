"""Checkpoints of other projects: recognised, read safely and rewritten to ours."""
