"""Every config dataclass of the method; imports no torch."""
