"""Catalogs: what a scan found, kept as Parquet files beside or apart from the archive."""
