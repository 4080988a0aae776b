"""Known failures: what a baseline accepts for a reason, and whether that still is so."""
