"""Export models as ONNX files, and compare the outputs of both."""
