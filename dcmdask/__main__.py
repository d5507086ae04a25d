"""``python -m dcmdask`` is the ``dcmdask`` command."""

from dcmdask.cli import main

main()
