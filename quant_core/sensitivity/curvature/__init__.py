"""What estimators of curvature share: derivatives, products with the Hessian, random probes, averages."""
