"""Reconciliation: every account of the same usage side by side, up to a cut (spec 4)."""
