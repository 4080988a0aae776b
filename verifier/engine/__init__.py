"""Who runs the cases: the plan, the worker processes, and the events by which they are heard of."""
