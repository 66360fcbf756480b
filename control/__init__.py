"""The management API: labs' endpoints, groups and keys, and the log of their changes."""
