"""Adds ``--cluster`` and its fixtures, for all folders in which pytest looks for tests."""

pytest_plugins = ["tests.cluster.plugin"]
