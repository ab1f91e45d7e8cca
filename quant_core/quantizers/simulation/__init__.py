"""The network with rounded tensors in float arithmetic, and how far rounding moves its outputs."""
