"""A settled plan rounded once more, each layer for the inputs that the rounded ones before it give."""
