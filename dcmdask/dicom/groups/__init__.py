"""Functional groups of multi-frame objects, and the items of sequences."""
