"""What users write, as their type checker sees it: read by mypy in `make lint`, and not run.

A use that must be refused has a ``type: ignore`` with its reason: mypy reports it if it is no longer needed.
"""
