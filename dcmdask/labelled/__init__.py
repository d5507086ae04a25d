"""Arrays with names and coordinates: labels, the accessor ``.dcm``, other grids, pictures."""
