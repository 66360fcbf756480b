"""The product as a whole: the command line and the ways to run all parts together."""
