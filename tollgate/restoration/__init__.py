"""Brings a restored database together with its topics, which know more than it (counting 9): `tollgate restore-done`."""
