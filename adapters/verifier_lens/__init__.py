"""`transformer-lens`: the installed TransformerLens under test, through the verifier's adapter protocol.

It reports what TransformerLens gives, and mends nothing: no shape is fixed, no bug worked around, no exception
caught but the one by which TransformerLens says that it has no such thing in an architecture. Importing this package
imports neither torch nor TransformerLens; wrapping a model does.
"""

from verifier_lens.installed import LensAdapter

__all__ = ["LensAdapter"]
