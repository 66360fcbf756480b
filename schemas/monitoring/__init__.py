"""What processes tell of themselves and of what they serve. No bill rests on it."""
