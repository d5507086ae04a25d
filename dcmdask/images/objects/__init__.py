"""Classes of objects by what their frames are, one module for each."""
