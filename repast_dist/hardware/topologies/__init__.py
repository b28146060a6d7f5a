"""Holds the topologies of the package, one file each."""
