"""Attacks on a real server: a stranger, or one tenant, takes all it can while another is served beside it."""
