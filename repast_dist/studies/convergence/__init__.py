"""``study=convergence``: cases, what is measured of each, tables, claims and page."""
