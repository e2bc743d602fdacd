"""From tables to arms, comparisons and verdicts."""
