"""The proxy's side of Kafka: publishing usage events, following decisions."""
