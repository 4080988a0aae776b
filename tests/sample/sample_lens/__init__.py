"""Sample Lens: a small interpretability library, which looks into Hugging Face's Falcon.

It is the example of the guide for adapter authors, and what the tests of `verifier` install as a stranger's package.
"""

from sample_lens.lens import Lens, Point

__all__ = ["Lens", "Point"]

__version__ = "1.0"
