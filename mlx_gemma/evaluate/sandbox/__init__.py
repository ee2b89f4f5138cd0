"""Running untrusted Python: in a process of its own, behind walls that have been tried on this machine.

    proof = prove()                       tries the walls; proof.require() raises where one has a hole
    result = run(Job(source, check))      one program against its tests
    results = run_all(jobs)               two at a time, in order

job.py          what is run, its limits, what came out        run.py        starting, bounding, killing, and the pool
walls.py        which wall this machine has                   proof.py      what the canary found, kept until a restart
bubblewrap.py   Linux: namespaces, nothing else mounted       canary.py     attempts to get out
landlock.py     Linux without namespaces                      inside.py     the program that runs behind the wall
seatbelt.py     macOS                                         seccomp.py    the system calls that Linux refuses

docs/sandbox.md tells what is blocked by what, where it was tried, and what remains.
"""

from mlx_gemma.evaluate.sandbox.job import Job, Limits, Result
from mlx_gemma.evaluate.sandbox.proof import Proof, prove
from mlx_gemma.evaluate.sandbox.run import choose, run, run_all
from mlx_gemma.evaluate.sandbox.walls import Wall, without_wall

__all__ = ["Job", "Limits", "Proof", "Result", "Wall", "choose", "prove", "run", "run_all", "without_wall"]
