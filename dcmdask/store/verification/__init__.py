"""Verification of stores."""
