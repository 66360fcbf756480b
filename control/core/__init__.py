"""What control decides without touching anything: the records, the refusals, the rules."""
