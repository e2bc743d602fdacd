"""Experiment trackers: TensorBoard, MLflow, W&B."""
