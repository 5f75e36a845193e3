"""Inputs and outputs of graphs that other tools write or read, one module a tool, each with a CONTRACT."""
