"""A sweep from plan to report, executed by Ray Tune."""
