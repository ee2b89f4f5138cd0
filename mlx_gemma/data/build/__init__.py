"""The project's own data sets, made from task families by rule: the same bytes from the same seed.

families.py     task families (python3_families/*.toml) -> tasks        samples.py   tasks -> rows, unlike one another
python3.py      datasets/python3, evals/tasks.jsonl                   sets.py      `mlx-gemma data build`
faults.py       raw: labelled faults put into a clean set               vulnerability.py, twins.py   the other set
adversarial.py  requests that are wrong, and answers that say so        (twists.py, twist_rules.py, twist_code.py)
splits.py       train, validation and test by family or source
"""
