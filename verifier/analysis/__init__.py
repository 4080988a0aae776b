"""What records mean: bugs and their rules, verdicts, coverage, errors over bounds, and differences of records."""
