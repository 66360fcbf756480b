"""All SQL of metering: the ledger, the sums, and the positions."""
