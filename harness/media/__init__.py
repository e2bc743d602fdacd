"""Videos and figures of episodes and energies."""
