"""Kafka as every process uses it: clients, the writer, the feed, and the topics."""
