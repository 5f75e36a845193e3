"""What other tools can be told: one module for each, its names, its config and its container."""
