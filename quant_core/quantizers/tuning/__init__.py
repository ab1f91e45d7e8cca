"""Codes, scales and biases tuned by gradients until blocks or the whole network compute what the float one does."""
