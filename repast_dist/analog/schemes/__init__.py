"""Inversion schemes: one module per way to make many bits of few; see `base.Scheme`."""
