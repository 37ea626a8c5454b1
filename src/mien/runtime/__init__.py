"""Looking: detect, crop, classify, write. ONNX Runtime; never torch."""
