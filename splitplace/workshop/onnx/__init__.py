"""ONNX graphs: inspect, export, narrow, run as a chain, and make independent of the batch size."""
