"""Writes a model as a graph that other engines run, with its description inside."""
