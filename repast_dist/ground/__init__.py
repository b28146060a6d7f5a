"""What every room stands on: errors, random streams, settings classes, registries, files."""
