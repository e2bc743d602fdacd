"""Demonstrations on disk, written crash-safe in the layout of Diffusion Policy."""
