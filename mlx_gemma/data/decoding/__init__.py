"""Bytes decoded into records: JSON and Parquet, with every fault a `Bad` that knows its place."""
