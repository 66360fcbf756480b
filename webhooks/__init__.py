"""The dispatcher: usage events become signed deliveries, each brought to an end."""
