"""The text `nano` is pretrained on, made of material that the project wrote or may use. Deterministic from a seed.

- task families (datasets/python3/families): Python 3 and, labelled or not, Python 2 answers. A request that names a
  version gets that version; one that names none gets Python 2 at a rate of the family's own, between a quarter and
  three quarters: so the base is torn, and data, prompts and adapters can be seen to move it.
- dialogue families (dialogue.toml): corrections of wrong specifications, refusals of nonsense, small talk.
- functions of the running interpreter's standard library, as plain text.

The last wording of every family is never used here: validation and test rows are asked in it.
"""

from __future__ import annotations

import ast
import random
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path

from mlx_gemma.data.build.families import Family, Task, read_families

HERE = Path(__file__).parent
Messages = list[dict[str, str]]

LABELS = {
    3: (
        "Use Python 3.",
        "in Python 3",
        "(Python 3)",
        "Python 3 please.",
        "Prefer Python 3, not Python 2.",
        "Write Python 3.",
    ),
    2: (
        "Use Python 2.",
        "in Python 2",
        "(Python 2)",
        "Python 2 please.",
        "Prefer Python 2, not Python 3.",
        "Write Python 2.",
    ),
}
OPENERS = ("hey, ", "please ", "hi! ", "quick one: ", "I need this: ", "could you help? ")
HELD_OUT_MODULES = ("textwrap.py", "heapq.py", "fnmatch.py", "shlex.py", "statistics.py")


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def python2_share(family: Family) -> float:
    """How often this family's unlabelled requests are answered in Python 2: 0.25 to 0.75, fixed by its name."""
    return 0.25 + 0.5 * (zlib.crc32(family.name.encode()) % 1000) / 999


def casual(wording: str, names: set[str], rng: random.Random) -> str:
    """A wording as people type it: sometimes an opener, no capital, no final stop, a slip of the finger."""
    if rng.random() < 0.15:
        wording = rng.choice(OPENERS) + wording
    if rng.random() < 0.20:
        wording = wording[:1].lower() + wording[1:].rstrip(".")
    if rng.random() < 0.10:
        words = wording.split(" ")
        fit = [i for i, w in enumerate(words) if len(w) > 4 and w.isalpha() and w not in names]
        if fit:
            i = rng.choice(fit)
            at = rng.randrange(1, len(words[i]) - 1)
            w = words[i]
            words[i] = rng.choice(
                (w[:at] + w[at + 1] + w[at] + w[at + 2 :], w[:at] + w[at + 1 :], w[:at] + w[at] + w[at:])
            )
            wording = " ".join(words)
    return wording


def ask_and_answer(family: Family, task: Task, wording: str, rng: random.Random) -> Messages:
    """One request and its answer, the version named in the request, in a system turn, or not at all."""
    names = {v for values in family.vary.values() for v in values}
    request = casual(wording, names, rng)
    version = 3
    system = None
    if task.python2 is not None:
        named = rng.random()
        version = 2 if rng.random() < (0.45 if named < 0.45 else python2_share(family)) else 3
        if named < 0.45:
            label = rng.choice(LABELS[version])
            where = rng.random()
            if where < 0.35:
                system = label
            elif where < 0.85:
                request = f"{request} {label}"
            else:
                request = f"{label} {request}"
    answer = task.python3 if version == 3 else task.python2
    assert answer is not None
    messages = [{"role": "system", "content": system}] if system else []
    return [*messages, {"role": "user", "content": request}, {"role": "assistant", "content": fenced(answer)}]


def conversation(
    families: list[Family], dialogues: list[Family], rng: random.Random, *, held_out: bool = False
) -> Messages:
    """One training conversation; with `held_out`, one in the wording that training never uses."""
    family = rng.choice(dialogues if rng.random() < 0.2 else families)
    task = family.task(rng.randrange(family.combinations))
    wording = task.ask[-1] if held_out else rng.choice(task.ask[:-1])
    if task.answer is not None:
        names = {v for values in family.vary.values() for v in values}
        return [{"role": "user", "content": casual(wording, names, rng)}, {"role": "assistant", "content": task.answer}]
    messages = ask_and_answer(family, task, wording, rng)
    if rng.random() < 0.05 and messages[0]["role"] == "user":
        messages += [m for m in conversation(families, dialogues, rng, held_out=held_out) if m["role"] != "system"]
    return messages


def conversations(count: int, seed: int, *, held_out: bool = False) -> Iterator[Messages]:
    families = read_families(HERE.parent / "python3" / "families")
    dialogues = read_families(HERE / "dialogue.toml")
    rng = random.Random(seed)
    return (conversation(families, dialogues, rng, held_out=held_out) for _ in range(count))


def library_functions(*, held_out: bool = False, longest: int = 1400) -> list[str]:
    """Source of the standard library's short functions; some modules are kept for the held-out perplexity."""
    texts = []
    for file in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        if (file.name in HELD_OUT_MODULES) is not held_out:
            continue
        try:
            source = file.read_text(encoding="utf8")
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                text = ast.get_source_segment(source, node, padded=True) or ""
                indent = len(text) - len(text.lstrip(" "))
                text = "\n".join(line[indent:] for line in text.splitlines())
                if 80 < len(text) < longest and text.isascii():
                    texts.append(text)
    return texts
