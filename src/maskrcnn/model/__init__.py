"""The network: trunk, pyramid, proposals, heads and their losses."""
