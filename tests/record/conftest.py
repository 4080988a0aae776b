"""Records as a run leaves them, made by hand."""

from record_fixtures import make

__all__ = ["make"]
