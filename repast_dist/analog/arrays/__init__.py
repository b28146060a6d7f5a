"""The arrays: multiplying, inverting and fused, with their wires, converters and noise."""
