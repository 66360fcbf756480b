"""Metering over Kafka: reading usage events, writing decisions and daily usage."""
