"""The console: pages for people over the same flows as the management API (`control.api`)."""
