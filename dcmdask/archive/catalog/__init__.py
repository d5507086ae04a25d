"""Catalogs: what a scan found, kept as Parquet files beside or apart from the archive."""

try:
    import pyarrow as pyarrow
except ImportError as error:
    raise ImportError("a catalog needs pyarrow: pip install 'dcmdask[table]'") from error
