"""One module per engine; each runs a model file and returns Raw."""
