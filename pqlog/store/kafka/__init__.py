"""The engine that keeps a log on a Kafka cluster."""
