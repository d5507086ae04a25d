"""The target of an export: its place, what dcmdask wrote there, and its group."""
