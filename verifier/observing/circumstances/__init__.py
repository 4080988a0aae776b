"""Run a case in a circumstance, on both sides in one way, and judge what the subject shows."""
