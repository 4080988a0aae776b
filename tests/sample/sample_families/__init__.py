"""Families that the sample package ships. Nothing here imports torch, so that they are listed at once."""
