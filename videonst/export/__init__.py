"""From a trained network to a model file and back (needs torch and onnx)."""

from videonst.export.int8 import export_int8
from videonst.export.onnx import describe_paintings, export_onnx, load_network

__all__ = ["describe_paintings", "export_int8", "export_onnx", "load_network"]
