"""Observations and video frames, drawn without a display."""
