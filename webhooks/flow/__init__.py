"""The dispatcher's story: intake freezes events into deliveries, dispatch brings each to an end."""
