"""What all parts agree on, pure: limits along a tree, days, positions, what counts as an event."""
