"""Encoded tiles of whole slides as chunks of Zarr 2: copied and compared, never decoded."""
