"""Intake over Kafka: a consumer group and its partitions."""
