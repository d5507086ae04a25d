"""A frame's bytes to an array: codestream, codecs, decoding; no Dask."""
