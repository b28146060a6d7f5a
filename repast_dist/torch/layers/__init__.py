"""Converted modules, one file per kind: PyTorch's own classes with products on the arrays."""
