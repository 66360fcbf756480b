"""What is counted: the ledger, daily usage, limit totals and decisions."""
