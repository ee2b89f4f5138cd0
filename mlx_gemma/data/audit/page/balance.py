"""The foot of an audit's page: lengths, what the set is made of, rows as the model sees them, and digests."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mlx_gemma.data.audit.page.plots import bars, boxes, columns
from mlx_gemma.data.audit.page.text import MARGIN, clean
from mlx_gemma.data.audit.report import Report
from mlx_gemma.data.checks.personal import find_personal
from mlx_gemma.data.checks.secrets import find_secrets, redacted, without_overlaps
from mlx_gemma.data.visible import visible
from mlx_gemma.html_page import Html, el, html

SAMPLE = 3000  # characters of a rendered sample
FILES = 20
TABLES = {  # of balance/counts.py: key -> title
    "tasks": "Task types",
    "families": "Families",
    "sources": "Sources",
    "licences": "Licences",
    "languages": "Languages of the prompts",
    "code": "Code in the answers",
    "turns": "Questions in a row",
    "system_prompts": "System prompts",
}
RUNS = re.compile("(⟦[^⟧]*⟧|✂)")


def lengths(report: Report) -> Html:
    """Tokens where the audit had a recipe, characters in any case."""
    plots = []
    if (tokens := report.whole.get("lengths")) and tokens["all"]["rows"]:
        parts = tokens["all"]["tokens"]
        groups = [("whole row", parts["whole"]), ("trained", parts["trained"]), ("not trained", parts["context"])]
        cut, counts = tokens["length"], tokens["all"]
        says = f"train.length {cut:,} cuts {counts['cut']:,} of {counts['rows']:,} rows; {counts['lost']:,} trained "
        says += f"tokens are lost with them (dashed line: the cut{_beyond(cut, parts['whole'])})."
        plots.append(_plot("Tokens of the kept rows", boxes(groups, cut), says))
        for part, title in (("whole", "Rows by their tokens"), ("trained", "Rows by their trained tokens")):
            bins = tokens["histogram"][part]
            plots.append(_plot(title, columns(bins, cut if part == "whole" else None), _last(bins)))
    characters = report.whole.get("balance", {}).get("characters", {})
    plots.append(_plot("Characters of all rows", boxes([(part, at) for part, at in characters.items()])))
    if tokens and (types := sorted(tokens["types"].items(), key=lambda t: -t[1]["rows"])):
        by_type = boxes([(kind, group["tokens"]["whole"]) for kind, group in types], tokens["length"])
        plots.append(_plot("Tokens by task type", by_type))
    says = "A box is the middle half of the rows, its line the median; the thin line goes from p5 to p99. "
    says += "Numbers: median, p99, longest."
    return html(el("h2", "Lengths"), el("p", says, class_="quiet"), el("div", *plots, class_="plots"))


def _last(bins: Sequence[tuple[int, int, int]]) -> str:
    first, last, rows = bins[-1]
    wide = last - first > bins[0][1] - bins[0][0] and len(bins) > 1
    return f"The last column is open: {rows:,} rows of {first:,} to {last:,} tokens." if wide else ""


def _beyond(cut: int, whole: Mapping[str, float]) -> str:
    return ", far to the right" if cut > 4 * whole["p99"] else ""


def balance(report: Report) -> Html:
    """A plot for each table; of those that say nothing, one line."""
    counted = report.whole.get("balance", {})
    rows, plots, empty = counted.get("rows", 0), [], []
    for key, title in TABLES.items():
        table = counted.get(key, {})
        missing, found = table.get("missing", 0), _counts(table)
        if not found:
            empty.append(title.lower())
            continue
        says = f"{table['distinct']:,} different; {missing:,} rows say nothing." if "distinct" in table else ""
        plots.append(_plot(title, bars(found, rows), says))
    if stances := dict(counted.get("stances", {})):
        judged = stances.pop("judged")
        says = f"Of {judged:,} answers that could be read; a set without any teaches to comply."
        plots.append(_plot("Answers that disagree", bars(stances.items(), judged), says))
    for part, table in counted.get("openings", {}).items():
        plots.append(_plot(f"How {part} begin", bars(_counts(table), rows), f"{table['distinct']:,} different."))
    none = el("p", f"No row says anything of: {', '.join(empty)}.", class_="quiet") if empty else ""
    return html(el("h2", "What the set is made of"), none, el("div", *plots, class_="plots"))


def _counts(table: Mapping[str, Any]) -> list[tuple[str, int]]:
    if "distinct" in table:
        return [(entry["name"], entry["rows"]) for entry in table["most"]]
    return list(table.items())


def _plot(title: str, plot: Html, says: str = "") -> Html:
    return el("figure", el("figcaption", title), plot, el("p", says, class_="quiet") if says else "", class_="block")


def samples(report: Report) -> Html:
    """The first kept rows as the model sees them; what is trained is marked."""
    shown = [
        el(
            "details",
            el(
                "summary",
                el("span", clean(s["where"]), class_="where"),
                f" {s['tokens']:,} tokens, {s['trained']:,} trained",
            ),
            el("pre", *_runs(str(s["text"]))),
            class_="sample",
            **({"open": ""} if not i else {}),
        )
        for i, s in enumerate(report.whole.get("samples", ()))
    ]
    says = "Control tokens included; the marked part is trained."
    head = el("h2", "As the model sees them"), el("p", says, class_="quiet")
    return el("section", *head, *shown, id="samples", class_="block") if shown else Html()


def _runs(text: str) -> Iterator[str]:
    beginning = text[: SAMPLE + MARGIN]
    private = without_overlaps([*find_secrets(beginning), *find_personal(beginning)])
    for part in RUNS.split(redacted(beginning, private)[:SAMPLE]):
        if part == "✂":
            yield el("b", "✂ cut off from here: ", class_="broken")
        else:
            yield el("mark", visible(part[1:-1]), class_="trained") if RUNS.fullmatch(part) else visible(part)
    if len(text) > SAMPLE:
        yield el("span", " …", class_="left")


def provenance(report: Report) -> Html:
    """Digests, policy and versions."""
    inputs = report.inputs
    lines = []
    for kind in ("data", "evals"):
        files = inputs.get(kind, [])
        lines += [
            (kind, f"{clean(f['file'])}, {f['bytes']:,} bytes, blake2b {f['blake2b'][:32]}") for f in files[:FILES]
        ]
        lines += [(kind, f"and {len(files) - FILES:,} more files")] if len(files) > FILES else []
    if rendering := inputs.get("rendering"):
        told = f"{rendering['model']}, length {rendering['length']:,}, turns {rendering['turns']}"
        digests = f"tokenizer {rendering['tokenizer'][:16]}, template {report.whole['lengths']['template_digest'][:16]}"
        lines.append(("rendered for", clean(f"{told}, {digests}")))
    for file, shapes in list(report.whole.get("shapes", {}).items())[:FILES]:
        lines.append(("shapes", clean(f"{file}: {', '.join(f'{n:,} {shape}' for shape, n in shapes.items())}")))
    lines.append(("policy", clean(json.dumps(report.policy.model_dump(mode="json")), 2000)))
    lines.append(("judged by", f"Python {platform.python_version()}'s grammar, in {report.seconds:.1f} s"))
    return el("dl", *(html(el("dt", key), el("dd", value)) for key, value in lines))
