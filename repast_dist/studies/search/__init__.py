"""Searches the best designs: parameters, proposals, a journal of points, and the answer."""
