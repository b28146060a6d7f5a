"""The sections of a training run's page."""
