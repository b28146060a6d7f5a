"""``study=frontier``: cases, what is measured of each, tables, claims and page."""
