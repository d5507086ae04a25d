"""Sources of bytes: local files, servers, compressed data."""
