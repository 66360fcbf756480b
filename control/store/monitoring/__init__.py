"""What processes told of themselves, and what was compared. No bill rests on it."""
