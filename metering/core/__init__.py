"""Decisions of metering: values and the time in, values out. No input, output, clock or chance."""
