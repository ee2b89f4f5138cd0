"""Is the code of an answer Python 3, Python 2, broken, truncated, or none? `source.classify` says so.

code_blocks.py     the code in an answer               (likeness.py: whether what nobody labelled is Python)
source.py          the verdict
python2_*.py       what makes source Python 2: its grammar, then names, idioms, lists and division that parse
"""
