"""The command line over demonstrations and what it is made of."""
