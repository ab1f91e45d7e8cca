"""Codes for weights, layer by layer: one way of rounding a file."""
