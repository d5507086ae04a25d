"""Options, progress and exit codes of commands: of `dcmdask`, and of a job's script."""
