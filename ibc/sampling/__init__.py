"""Negatives for training and the search for actions."""
