"""Records as a run leaves them, made by hand."""

from record_fixtures import hostile, make

__all__ = ["hostile", "make"]
