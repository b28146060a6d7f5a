"""``study=precision``: points and their solves, tables, and the page."""
