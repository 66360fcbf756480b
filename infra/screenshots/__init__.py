"""`./run screenshots`: pictures of the console for the documentation, from a seeded month."""
