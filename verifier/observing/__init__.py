"""What both models show in a case: activations, gradients, interventions, isolated modules, where they part."""
