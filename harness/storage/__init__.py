"""Results on disk: tables, checkpoints, the folder of a trial."""
