"""Annotating much: a folder, a glob, Parquet files or a bucket into partitioned Parquet, one row an input (docs/scale.md)."""
