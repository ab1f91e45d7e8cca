"""The exported model: the user's nodes, each layer in its form, and the file's own around them."""
