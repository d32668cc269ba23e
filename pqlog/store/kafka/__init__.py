"""The engine that keeps a log on a Kafka cluster."""

SCHEME = "kafka://"
"""How the address of a cluster begins."""
