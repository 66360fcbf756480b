"""The roles of an installation whose parts run apart, over Kafka and PostgreSQL (contract 6). One module for each."""
