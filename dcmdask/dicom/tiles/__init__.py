"""Tiles of total pixel matrices: their places in the matrix, and in a TIFF file."""
