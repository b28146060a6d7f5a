"""The topologies of the project, one file each."""
