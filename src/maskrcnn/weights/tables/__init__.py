"""One table of rows per source: their names, ours, and what happens to the tensor."""
