"""Demonstrations: reading, checking, windows, normalisation."""
