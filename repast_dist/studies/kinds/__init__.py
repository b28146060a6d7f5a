"""The project's own studies, one file each."""
