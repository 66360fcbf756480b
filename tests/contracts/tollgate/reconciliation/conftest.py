"""The cluster's desk finds the days that it finds in its own tests."""

from tests.integration.tollgate.reconciliation.conftest import postgres_migrated_url

__all__ = ["postgres_migrated_url"]
