"""Reports of jobs."""
