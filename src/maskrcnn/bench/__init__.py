"""How fast models are: measured in turns, each in a process of its own."""
