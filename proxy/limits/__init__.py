"""The arithmetic of limits: days, rate windows, and estimates."""
