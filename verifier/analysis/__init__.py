"""What records mean: rules, findings, causes, coverage, parity, differences."""
