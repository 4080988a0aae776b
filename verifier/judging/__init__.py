"""Whether two things are the same: comparisons, measured noise, outcomes and their evidence."""
