"""Files that stand for others: archives, gzipped files and directories of media."""
