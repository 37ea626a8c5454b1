"""Judging: what a model said about a manifest, and how right it was. NumPy and scikit-learn."""
