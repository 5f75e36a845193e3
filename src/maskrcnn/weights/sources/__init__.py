"""One module a source: the table of its names, and what it means by its numbers."""
