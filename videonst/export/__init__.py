"""From a trained network to a model file and back (needs torch and onnx)."""

from videonst.export.onnx import describe_paintings, export_onnx, load_network

__all__ = ["describe_paintings", "export_onnx", "load_network"]
