"""All of one `mlx-gemma eval`: some suites, one model or two, folders that keep the answers, and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from mlx_gemma import platform, run
from mlx_gemma.data.formats import read_rows as read_data
from mlx_gemma.errors import UserError
from mlx_gemma.evaluate import folder
from mlx_gemma.evaluate.contenders import Contender, give_up, loaded
from mlx_gemma.evaluate.perplexity import Perplexity, perplexity
from mlx_gemma.evaluate.report import report
from mlx_gemma.evaluate.results import read_rows
from mlx_gemma.evaluate.run import Router, evaluate, finished
from mlx_gemma.evaluate.sandbox import Wall
from mlx_gemma.evaluate.suite import Suite
from mlx_gemma.evaluate.summary import Side, columns, compared, confidences, counts, types
from mlx_gemma.gemma4.load import Gemma


@dataclass(frozen=True)
class Done:
    """One suite, its sides (what is compared with first), and where the page is."""

    suite: Suite
    sides: tuple[Side, ...]
    page: Path


@dataclass(frozen=True)
class Finished:
    """All suites; perplexities by the sides' names, empty where none was asked for."""

    suites: tuple[Done, ...]
    perplexities: Mapping[str, Perplexity]

    def summary(self) -> dict[str, Any]:
        """For other programs; rates as counts, numbers unrounded."""
        found: dict[str, Any] = {"suites": {}, "machine": platform.describe()}
        for done in self.suites:
            entry: dict[str, Any] = {side.name: _summary(side) for side in done.sides}
            if len(done.sides) == 2:
                entry["compared"] = {
                    f"{column}: {verdict}": str(c)
                    for (column, verdict), c in compared(done.sides[0].rows, done.sides[1].rows).items()
                }
            found["suites"][done.suite.header.name] = entry | {"report": str(done.page)}
        if self.perplexities:
            found["perplexity"] = {
                name: {"value": p.value, "interval": p.interval} for name, p in self.perplexities.items()
            }
        return found


class Session:
    """One model, or two, on some suites.

    Args:
        sides: from `contenders`.
        out: the folder OUT; answers go to OUT/SUITE/SIDE/.
        wall: as in `judge`.
        gated: opens a side that has a gate: its model, and who answers.
    """

    def __init__(
        self,
        suites: Sequence[Suite],
        sides: Sequence[Contender],
        out: Path,
        *,
        seed: int = 0,
        sampled: bool = True,
        max_tokens: int | None = None,
        batch: int = 16,
        wall: Wall | None = None,
        gated: Callable[[Contender], tuple[Gemma, Router]] | None = None,
    ) -> None:
        names = [suite.header.name for suite in suites]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"two suites are called {twice!r}", fix="evaluate them one by one, or rename one")
        self.suites, self.sides, self.out, self.wall, self.gated = suites, sides, out, wall, gated
        self.seed, self.sampled, self.max_tokens, self.batch = seed, sampled, max_tokens, batch
        self.files: dict[tuple[str, str], Path] = {}

    def prepare(self, *, fresh: bool = False) -> None:
        """Make the folders, before any model is loaded.

        Raises:
            UserError: one of them holds other answers, or something else.
        """
        places = {
            (suite.header.name, side.name): (
                self.out / _safe(suite.header.name) / side.name,
                self._settings(suite, side),
            )
            for suite in self.suites
            for side in self.sides
        }
        for place, wanted in places.values():
            folder.check(place, wanted, fresh=fresh)
        for key, (place, wanted) in places.items():
            self.files[key] = folder.make(place, wanted, fresh=fresh)

    def run(self, rows: str | None = None, say: Callable[[str], None] = lambda text: None) -> Finished:
        """Answer what is not answered yet, a side after the other, and write the reports.

        Args:
            rows: data whose perplexity is taken too.
            say: is told what is going on.
        """
        held: Gemma | None = None
        router: Router | None = None
        perplexities: dict[str, Perplexity] = {}
        sides: dict[tuple[str, str], Side] = {}
        data = list(read_data(rows)) if rows else []
        for side in self.sides:
            for suite in self.suites:
                file, what = self.files[suite.header.name, side.name], f"{suite.header.name}, {side.name}"
                found = finished(suite, read_rows(file), sampled=self.sampled)
                if found is None:
                    held, router = self._loaded(side, held, router)
                    found = evaluate(
                        held,
                        suite,
                        system=side.system,
                        seed=self.seed,
                        sampled=self.sampled,
                        max_tokens=self.max_tokens,
                        batch=self.batch,
                        file=file,
                        wall=self.wall,
                        router=router,
                        progress=partial(_say, say, what),
                    )
                sides[suite.header.name, side.name] = Side(side.name, found, self._settings(suite, side))
            if data and not side.gate:
                held, router = self._loaded(side, held, router)
                perplexities[side.name] = perplexity(held, data, partial(_say, say, f"perplexity, {side.name}"))
        if perplexities:
            sides = {key: replace(side, perplexity=perplexities[side.name]) for key, side in sides.items()}
        return Finished(tuple(self._report(suite, sides) for suite in self.suites), perplexities)

    def _loaded(self, side: Contender, held: Gemma | None, router: Router | None) -> tuple[Gemma, Router | None]:
        if side.gate is None:
            return loaded(side, held), None
        if router is not None and held is not None:
            return held, router  # only the last side may have a gate
        if held is not None:
            give_up(held)
        assert self.gated is not None
        return self.gated(side)

    def _settings(self, suite: Suite, side: Contender) -> dict[str, Any]:
        return folder.settings(
            side, suite, seed=self.seed, sampled=self.sampled, max_tokens=self.max_tokens, batch=self.batch
        )

    def _report(self, suite: Suite, sides: Mapping[tuple[str, str], Side]) -> Done:
        name = suite.header.name
        chosen = tuple(sides[name, side.name] for side in self.sides)
        page = self.files[name, self.sides[-1].name].with_name(folder.REPORT)
        document = report(suite, chosen, platform.describe())
        with run.disk_errors(page.parent):
            run.write_text(page, document)
        return Done(suite, chosen, page)


def _say(say: Callable[[str], None], what: str, done: int, of: int) -> None:
    say(f"{what}: {done}/{of}")


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name).strip(".") or "suite"


def _summary(side: Side) -> dict[str, Any]:
    found: dict[str, Any] = {
        "settings": dict(side.settings),
        "seconds_an_answer": _mean([r.seconds for r in side.rows]),
    }
    found["rates"] = {
        part.name: {verdict: [rate.count, rate.total] for verdict, rate in counts(part.rows).items()}
        for part in columns(side.rows)
    }
    found["types"] = {cell.name: [cell.rate.count, cell.rate.total] for cell in types(side.rows)}
    found["confidence"] = {name: str(c) for name, c in confidences(side.rows).items()}
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
