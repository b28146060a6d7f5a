"""``study=scaling``: points and their cost, placements, and the page."""
