"""What processes told of themselves. No bill rests on it."""
