"""The model families: the only rooms of the harness that name one."""
