"""Hugging Face's side: building, random weights, taps, canonical weights, perturbation, snapshots of HF's own code."""
