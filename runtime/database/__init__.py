"""The relational database as every process uses it."""
