"""What a data set is made of, counted row by row (counts.py), and what of it should not be overlooked (findings.py)."""
