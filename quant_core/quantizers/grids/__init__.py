"""Grids of weights and activations: what lies on them, which steps can be stored, how weights share steps."""
