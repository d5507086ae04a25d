"""A file's bytes to elements, header, functional groups and frame index; no pixels are touched."""
