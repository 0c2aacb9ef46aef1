"""Make an application from a user's network: an ONNX file, or torch code with weights."""
