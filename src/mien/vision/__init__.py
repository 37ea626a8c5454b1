"""Pixels and geometry: images, the one crop, video, drawing. NumPy, OpenCV, Pillow, PyAV."""
