"""From lazy arrays to Zarr stores. The only floor that knows zarr."""
