"""``study=headline``: machines and their steps, ratios, what assumptions decide, and the page."""
