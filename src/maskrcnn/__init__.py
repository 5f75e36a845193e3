"""Mask R-CNN: any public checkpoint in, the same accuracy on every engine out."""
