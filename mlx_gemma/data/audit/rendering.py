"""The third pass, where a recipe says for which model and how long: the kept rows as tokens.

Lengths, what the recipe's length cuts off, and some rows as the model will see them. For a model on the hub its
tokenizer alone is fetched, not its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from mlx_gemma.data.formats import Row
from mlx_gemma.errors import ModelError

TOKENIZER_FILES = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json"]
SAMPLES = 3
EVERY = 256  # rows between two words about the progress


@dataclass(frozen=True)
class Rendering:
    """What a recipe says: `model.name`, `model.revision`, `train.length` in tokens, `data.turns`."""

    model: str
    revision: str | None
    length: int
    turns: str

    def folder(self) -> Path:
        """Where the model's tokenizer and template are.

        Raises:
            ModelError: there is no such model, or the hub cannot be reached.
        """
        from mlx_gemma.gemma4.checkpoint import find

        if "/" not in self.model or Path(self.model).expanduser().exists():
            return find(self.model).folder
        from huggingface_hub import snapshot_download

        try:
            return Path(snapshot_download(self.model, revision=self.revision, allow_patterns=TOKENIZER_FILES))
        except Exception as e:  # a dozen kinds, from no network to no licence; each means that there is no tokenizer
            fix = "connect to the network and log in, or give a local folder"
            raise ModelError(f"its tokenizer cannot be fetched ({type(e).__name__})", where=self.model, fix=fix) from e

    def made_from(self, folder: Path) -> dict[str, Any]:
        """What decides the result: JSON."""
        from mlx_gemma.digest import digest_files

        return asdict(self) | {"tokenizer": digest_files(f for n in TOKENIZER_FILES if (f := folder / n).exists())}

    def count(self, rows: Iterable[Row], folder: Path, told: Callable[[int], None]) -> dict[str, Any]:
        """{"lengths": as lengths.py has them, "samples": the first rows, what is trained in them marked}."""
        from mlx_gemma.data.lengths import Lengths
        from mlx_gemma.data.rendered import rendered_samples
        from mlx_gemma.gemma4.template import ChatTemplate

        template = ChatTemplate(folder)
        lengths, coming = Lengths(template, self.length, turns=self.turns), iter(rows)
        first = list(islice(coming, SAMPLES))
        samples = rendered_samples(template, first, length=self.length, turns=self.turns)
        lengths.add(first)
        lengths.add(_counted(coming, told))
        shown = [{"where": s.where, "tokens": s.tokens, "trained": s.trained, "text": s.marked()} for s in samples]
        return {"lengths": lengths.as_json(), "samples": shown}


def _counted(rows: Iterable[Row], told: Callable[[int], None]) -> Iterator[Row]:
    for number, row in enumerate(rows, SAMPLES + 1):
        if number % EVERY == 0:
            told(number)
        yield row


def lines(lengths: dict[str, Any]) -> list[str]:
    """Lengths in words, for people."""
    counts, length = lengths["all"], lengths["length"]
    if not counts["rows"]:
        return []
    whole, trained = (counts["tokens"][part] for part in ("whole", "trained"))
    told = f"tokens of the kept rows: {whole['p50']:,} (p50), {whole['p99']:,} (p99), {whole['max']:,} (max)"
    told += f"; trained of them: {trained['p50']:,}, {trained['p99']:,}, {trained['max']:,}"
    lost = f"{counts['lost']:,} trained tokens ({counts['lost'] / max(1, counts['trained']):.2%}) are lost"
    cut = f"train.length {length:,} cuts {counts['cut']:,} rows: {lost}, {counts['untrainable']:,} rows have none left"
    return [told, cut, *([f"{lengths['refused']:,} rows are not rendered"] if lengths["refused"] else [])]
