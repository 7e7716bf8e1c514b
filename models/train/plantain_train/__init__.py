"""Training of the bundled model: icon packages in, a diffusers-like ONNX folder out. See README.md."""
