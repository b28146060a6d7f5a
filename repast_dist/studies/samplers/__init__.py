"""Who can propose the points of a search, one file each."""
