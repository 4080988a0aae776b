"""Observe both models in a case: activations, gradients, edited runs, isolated modules, and where they differ."""
