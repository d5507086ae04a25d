"""Zarr stores: plan, write, resume, OME-Zarr."""
