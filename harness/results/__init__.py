"""The command line over results."""
