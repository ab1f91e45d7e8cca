"""The nodes that stand for the weight of a layer, one kind of form a file."""
