"""ONNX files as PyTorch modules that can be trained."""

from repast_dist.torch.onnx.reading import from_onnx

__all__ = ["from_onnx"]
