"""Where networks come from: layers in settings, or a function of the user's own."""

from repast_dist.training.models.base import MODELS, ModelSource

__all__ = ["MODELS", "ModelSource"]
