"""Second-order training: networks, losses, K-FAC and first-order baselines over NumPy arrays."""
