"""Annotated images as training samples."""
