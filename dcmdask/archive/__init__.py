"""Discovery, scan and series of an archive."""
