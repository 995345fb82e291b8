"""Models as ONNX files, compared with themselves."""
