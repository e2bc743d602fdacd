"""The page: report.html, one file that can be mailed."""
