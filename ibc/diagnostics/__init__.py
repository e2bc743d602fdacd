"""Health checks and probes that name common failure modes."""
