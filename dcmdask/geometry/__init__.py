"""Positions, order and dimensions of frames: pure functions."""
