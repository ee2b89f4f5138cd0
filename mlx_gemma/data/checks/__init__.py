"""What may be wrong with a row.

Alone: form, marks (of chat templates), secrets, personal, unsafe, contamination; each `(row) -> Iterator[Reason]`.
Among others: duplicates, semantic, leakage.
"""
