"""What control writes to Kafka."""
