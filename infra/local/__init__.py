"""Starts real services on this machine: Kafka, PostgreSQL, PgBouncer and Redis, for tests and for `./run cluster`.

Never touches a service that runs already, and never a port or a folder that it was not given or did not find free.
"""
