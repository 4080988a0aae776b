"""Judge whether two things are equal: comparisons, measured noise, outcomes and their evidence."""
