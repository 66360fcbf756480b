"""Starts real services on this machine: Kafka, PostgreSQL, PgBouncer and Redis, for tests and for `./run cluster`."""
