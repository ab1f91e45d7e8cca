"""Biases that make up for what rounding adds to means."""
