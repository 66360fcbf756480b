"""Decisions of webhooks: values and the time in, values out. No input, output, clock or chance."""
