"""The controllers of the management API, one file a resource."""
