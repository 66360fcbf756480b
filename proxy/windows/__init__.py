"""The `Windows` port: rate windows in memory."""
