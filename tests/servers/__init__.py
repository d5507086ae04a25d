"""Servers that other people use, each started on loopback; none is installed by these."""
