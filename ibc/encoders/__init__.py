"""Observations to feature vectors."""
