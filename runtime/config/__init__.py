"""A change's way from the database into every process's snapshot."""
