"""Rollouts of a policy over many seeds, in parallel."""
