"""Implicit behavioral cloning; knows nothing of Ray, results or where files lie."""
