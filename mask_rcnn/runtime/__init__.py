"""Networks outside Keras: written as ONNX from their weights files, and run by ONNX Runtime or OpenVINO."""
