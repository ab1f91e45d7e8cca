"""Channels scaled before rounding, without changing what the network computes."""
