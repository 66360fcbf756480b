"""Reconciliation: every account of the same usage side by side, up to a cut (contract 4)."""
