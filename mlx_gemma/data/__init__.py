"""Data sets: what is in them, what of it is trained, and how the project's own are made.

formats.py      rows of any data set, read into one form          (records.py, sources.py, decoding/)
audit/          every check over every row, in two passes          (policy.py: what a recipe makes of what is found)
checks/         one module a check: `(row) -> reasons`, or an index of all rows
python/         whether code is Python 3, Python 2, broken, truncated, or none
balance/        what a set is made of: tasks, licences, languages, stances, lengths
build/          the project's own sets, made from task families
card/           dataset cards, by which a set is versioned by content
solutions.py    running a solution against its checks
"""
