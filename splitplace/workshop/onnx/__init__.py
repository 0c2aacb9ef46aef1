"""ONNX graphs: read, export, narrow, join and free the batch size."""
