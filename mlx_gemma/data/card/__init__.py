"""Dataset cards: of any data set (write.py), and of the project's own two (python3.py, vulnerability.py)."""
