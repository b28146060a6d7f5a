"""Measurements of cells that the package has; see `repast_dist.analog.cells.measured`."""
