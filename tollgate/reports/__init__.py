"""Files made from the ledger."""
