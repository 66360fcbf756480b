"""Brings a restored database together with its topics, which know more than it: `tollgate restore-done`."""
