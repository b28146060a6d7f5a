"""Cell models: one module per kind of memory cell; see `base.Cell`."""
