"""OME-Zarr: axes, channels and labels of an image, and the metadata that say them."""
