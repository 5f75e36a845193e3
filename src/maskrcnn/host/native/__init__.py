"""The network's loops compiled from C, for whoever has them: a compiler at installation is enough."""
