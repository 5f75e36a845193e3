"""The workflows of the five systems that this package replaces: their command lines and files over ours."""
