"""The sparse engine: in memory, for tests."""
