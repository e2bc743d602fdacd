"""One trial: training, selection, its time estimate."""
