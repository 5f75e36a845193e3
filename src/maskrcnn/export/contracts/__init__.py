"""Writers of graphs with the inputs and outputs of another tool, one module a tool, each with `export`."""
