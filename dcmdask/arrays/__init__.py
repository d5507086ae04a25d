"""From array-likes to labelled, lazy Dask arrays. Dask begins here."""
