"""Quantities that stored values stand for: real world values, SUV, Scale Slope."""
