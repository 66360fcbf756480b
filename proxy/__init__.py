"""The hot path: one developer's request, from its key to its usage event."""
