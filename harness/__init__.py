"""The machine around the method: sweeps, evaluations, results."""
