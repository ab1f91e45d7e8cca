"""How tensors lie in a file: packed, in 16 bits, beside the message; and the nodes that unpack them at load."""
