"""Ascend's pipeline of files: images become `.bin`, an engine makes three of each, and they are measured."""
