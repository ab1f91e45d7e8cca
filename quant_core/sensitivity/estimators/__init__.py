"""One estimator a file: what a layer in few bits costs, by its method's own formula."""
