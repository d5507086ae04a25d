"""Whole slides: their levels, and the pictures that belong to them."""
