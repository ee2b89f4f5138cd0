"""The errors a user can cause, and how they are told.

Everything that goes wrong because of what the user gave (a recipe, a file, a folder, a full disk) is a `UserError`: the
command line prints it as one line and exits with status 2. Anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path
from unicodedata import category

HIDDEN = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, surrogates, separators of lines and paragraphs


def visible_line(text: str) -> str:
    """Text as one line in which nothing acts on a terminal: escapes, and what cannot be seen, as `\\x1b`, `\\u202e`.

    White space is one blank. (data/visible.py keeps line ends, for whole texts.)
    """
    line = " ".join(text.split())
    return "".join(c.encode("unicode_escape").decode() if category(c) in HIDDEN else c for c in line)


class UserError(Exception):
    """A mistake in the input: what was wrong, where, and what to do about it.

    Args:
        what: one clause, without a final stop.
        where: file, `file:line`, key or folder the mistake is in.
        fix: what the user can do, one clause.
    """

    def __init__(self, what: str, *, where: str | Path | None = None, fix: str | None = None) -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(what)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where is not None else self.what
        line = f"{head}; {self.fix}" if self.fix else head
        return visible_line(line)


class Interrupted(UserError):
    """Ctrl-C, after what was under way has been saved; exit status 130."""


class RecipeError(UserError):
    """A recipe that cannot be followed: unknown key, value of the wrong kind, contradiction."""


class DataError(UserError):
    """A data file or row that cannot be read; `where` is `file:line`."""


class ModelError(UserError):
    """A checkpoint, adapter or run folder that is not what it should be."""
