"""The implicit policy and the explicit baselines."""
