"""The engine: a trained ONNX model in, a mixed-precision ONNX model and the reasons out."""
