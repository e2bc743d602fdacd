"""The command line over results."""

# Here, not beside the code that writes them, so that `--help` imports none of it.
TABLES = ("trials", "curves", "episodes", "arms", "answers")
SUFFIXES = {
    "csv": ".csv",
    "arrow": ".arrow",
    "parquet": ".parquet",
    "latex": ".tex",
    "markdown": ".md",
}
