"""Which languages a row is in: the natural language of its prompt, the programming languages of its answer.

Natural language: py3langid (BSD-3-Clause, 5 MB with its model, numpy alone) over the prose, code and identifiers taken
out. Among LANGUAGES it names 98 of the 100 short prompts in tests/data/samples/languages.jsonl (eight languages) at
about 0.1 ms each; langdetect names 93 at 4.5 ms, lingua 93 at 43 ms, from 96 MB (two busy cores of an Intel Xeon at
2.10 GHz, Linux).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from mlx_gemma.data.python.code_blocks import PYTHON, code_blocks

LANGUAGES = (
    *("ar", "bg", "bn", "cs", "da", "de", "el", "en", "es", "fa", "fi", "fr", "he", "hi", "hu", "id", "it", "ja", "ko"),
    *("nl", "no", "pl", "pt", "ro", "ru", "sv", "ta", "th", "tr", "uk", "vi", "zh"),
)  # ISO 639-1; without the rare ones, for which short English prompts are mistaken
SURE = 0.5  # the least probability; what is less probable is "unclear"
READ = 1000  # characters; more change nothing and cost time

LABELS = {  # labels of fences that mean the same
    **dict.fromkeys(PYTHON, "python"),
    **dict.fromkeys(("js", "jsx", "node", "javascript"), "javascript"),
    **dict.fromkeys(("ts", "tsx", "typescript"), "typescript"),
    **dict.fromkeys(("sh", "bash", "shell", "zsh", "console", "terminal"), "shell"),
    **dict.fromkeys(("c++", "cpp", "cc", "cxx"), "c++"),
    **dict.fromkeys(("c#", "cs", "csharp"), "c#"),
    **dict.fromkeys(("rb", "ruby"), "ruby"),
    **dict.fromkeys(("rs", "rust"), "rust"),
    **dict.fromkeys(("go", "golang"), "go"),
    **dict.fromkeys(("yml", "yaml"), "yaml"),
    **dict.fromkeys(("md", "markdown"), "markdown"),
    **dict.fromkeys(("txt", "text", "plaintext", "output"), "text"),
}

FENCE = re.compile(r"^[ \t]*(?P<mark>`{3,}(?=[^`]*$)|~{3,})(?P<rest>[ \t]*\{?\.?(?P<label>[\w+#-]*).*)$")
INLINE = re.compile(r"`[^`\n]*`")
NAME = re.compile(r"\b[A-Za-z]\w*\([^()\n]{0,200}\)|\b[A-Za-z]\w*_\w*|\bhttps?://\S+")


def prose(text: str) -> str:
    """A text without its fenced blocks; an unclosed fence runs to the end. Linear."""
    return "\n".join(line for line, label in _lines(text) if label is None)


def _lines(text: str) -> Iterator[tuple[str, str | None]]:
    """Every line outside of fences with None, every opening fence with its label; what is inside is left out."""
    mark = ""
    for line in text.splitlines():
        fence = FENCE.match(line)
        if fence is None:
            if not mark:
                yield line, None
        elif not mark:
            mark = fence["mark"]
            yield line, fence["label"].lower()
        elif fence["mark"].startswith(mark) and not fence["rest"].strip():
            mark = ""


def natural_language(text: str) -> str:
    """ISO 639-1 code of one of LANGUAGES; "unclear" if none is at least SURE; "none" where there are no words."""
    words = NAME.sub(" ", INLINE.sub(" ", prose(text[: 8 * READ])[:READ]))
    if not any(map(str.isalpha, words)):
        return "none"
    code, probability = _identifier().classify(words)
    return str(code) if probability >= SURE else "unclear"


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier


def programming_languages(answer: str) -> set[str]:
    """Of an answer's fences, by their labels; "python" also for unlabelled and bare code that looks like it.

    "unlabelled": a fence without a label that does not look like Python. Empty: no code found.
    """
    fenced = "```" in answer or "~~~" in answer
    found = (
        {LABELS.get(label, label) or "unlabelled" for _, label in _lines(answer) if label is not None}
        if fenced
        else set()
    )
    if (not found or "unlabelled" in found) and "python" not in found and code_blocks(answer):
        found = (found - {"unlabelled"}) | {"python"}
    return found
