"""The layer kinds of the package, one file each."""
