"""One SOP Instance: bytes, elements, frame index, decoding. NumPy and pydicom, no Dask."""
