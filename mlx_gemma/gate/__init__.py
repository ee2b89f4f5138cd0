"""The gate: does a query go to the specialist (base with adapter), or to the base? With a stated error rate.

build       a run's training prompts -> index            calibrate   both models' outcomes -> thresholds
encoders    texts -> unit vectors                        outcomes    calibration.jsonl
index       the index file, searched; approximate        fit         score and thresholds from outcomes
scores      how much a query is like the rows            risk        the bound, tested
route       Gate: query -> decision                      coverage    risk and coverage of every threshold
router      several specialists                          calibrated  gate.json
stale       what a gate was made of, and is now          report      page and pictures; tables, figures
gated       a gate with its models
retrieve    nearest rows as examples in the prompt
"""
