"""Datasets as tables: sources, manifests, preparing chips, splitting. NumPy and pyarrow; never torch."""
