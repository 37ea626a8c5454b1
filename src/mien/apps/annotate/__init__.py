"""Annotating much: a folder, a glob, Parquet files or a bucket into partitioned Parquet, one row an input (docs/scale.md)."""

from mien.errors import MissingExtra

try:
    import filelock  # noqa: F401
    import fsspec  # noqa: F401
    import pyarrow  # noqa: F401
except ImportError as error:
    raise MissingExtra.of(f"Annotating needs {error.name}", "data") from error
