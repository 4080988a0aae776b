"""What a subject holds: that subjects, copies and modes do not see each other, and that nothing is left behind."""

from __future__ import annotations
