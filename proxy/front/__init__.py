"""What a developer's client meets: requests come in, answers go out."""
