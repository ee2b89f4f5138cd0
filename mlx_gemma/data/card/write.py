"""The card of any data set (README.md, as the Hugging Face hub reads it), by which it is versioned by content.

    write_card(Path("mine"), license="mit")    # mine/README.md: rows, licences, sources, tokens, sha256 of every file
    card_digests.changed(Path("mine"))         # [] as long as the files are what the card says

The digests stand at the card's end as `sha256sum -c` takes them, with paths from the card's folder; the digest over
that list is the data set's version.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_gemma.data.card import tables
from mlx_gemma.data.card.digests import MARK, WHOLE, card_path, files, relative, sha256
from mlx_gemma.data.card.facts import KEYS, Facts, read_facts, together
from mlx_gemma.digest import digest_text
from mlx_gemma.errors import UserError
from mlx_gemma.run import disk_errors, write_text

if TYPE_CHECKING:
    from mlx_gemma.gemma4.template import ChatTemplate

SIZES = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M", 10**7: "1M<n<10M"}
ABOUT = re.compile(r"^# .*?$(.*?)^## Rows$", re.MULTILINE | re.DOTALL)
SPLIT_NAMES = {"valid": "validation"}  # as the hub calls them

TEMPLATE = """---
{{ card_data }}
---
{{ mark }}

# {{ name }}

{% if about %}{{ about }}

{% endif %}## Rows

{{ rows }}
{% for title, table in tables %}
## {{ title }}

{{ table }}
{% endfor %}
## Digests (sha256)

Version `{{ version }}`: the sha256 of the list below.
`mlx-gemma data card … --check` and `sha256sum -c` compare the files with it.

```
{{ digests }}
```
"""


def write_card(
    data: Path,
    *,
    out: Path | None = None,
    name: str | None = None,
    license: str | None = None,
    language: str | None = None,
    template: ChatTemplate | None = None,
    audit: Path | None = None,
    about: str = "",
) -> Path:
    """Write the card of a folder or file; reads every row and every file once.

    Args:
        out: README.md in the folder by default, NAME.card.md beside a file.
        name: by default what the card said before, or the folder's or file's own.
        license: of the rows that name none; by default what the card said before.
        language: of the texts, as the hub spells it ("en").
        template: counts tokens, about 0.5 ms a row.
        audit: an audit.json; by default the folder's, if there is one.
        about: a paragraph or more of Markdown; by default what stood above the rows before.

    Returns:
        The card's path.

    Raises:
        UserError: nothing to read; a README.md that something else wrote; an audit.json that is none.
    """
    from huggingface_hub import DatasetCard, DatasetCardData

    out = out or card_path(data)
    before, kept = _kept(out)
    name, about = name or before.get("pretty_name") or _name(data), about or kept
    facts = read_facts(data, template)
    licences, unlicensed = together(facts, "licence")
    license = license or _said(before, licences)
    digests = "\n".join(f"{sha256(f)}  {relative(f, out)}" for f in files(data, out))
    total = sum(f.rows for f in facts.values())
    given = {"language": language} if language else {}
    found = {
        "pretty_name": name,
        "size_categories": [next((s for n, s in SIZES.items() if total < n), "n>10M")],
        "configs": [{"config_name": "default", "data_files": _data_files(facts, out)}],
        **tables.hub_licence([*licences, *([license] if license and unlicensed else [])]),
    }
    front = DatasetCardData(**({"task_categories": ["text-generation"]} | before | given | found))
    shown = [("Licences", tables.licences(licences, unlicensed, license))]
    for kind, title in (("source", "Sources"), ("task", "Task types")):
        values, missing = together(facts, kind)
        note = f"\n\n{missing:,} rows name none (keys looked for: {', '.join(KEYS[kind])})." if missing else ""
        shown.append((title, (tables.table(kind, values.most_common()) if values else "None is named.") + note))
    fences = sum((f.fences for f in facts.values()), start=Counter[str]())
    if fences:
        shown.append(("Code in answers", tables.table("rows with a block of", fences.most_common())))
    audit = audit or (data / "audit.json" if (data / "audit.json").is_file() else None)
    if audit is not None:
        shown.append(("Audit", tables.audit(audit)))
    card = DatasetCard.from_template(
        front,
        template_str=TEMPLATE,
        mark=WHOLE if data.is_dir() else f"{MARK}: one file -->",
        name=name,
        about=about.strip(),
        rows=tables.rows(facts),
        tables=shown,
        version=digest_text(digests),
        digests=digests,
    )
    with disk_errors(out.parent):
        write_text(out, f"{card}\n")
    return out


def _kept(out: Path) -> tuple[dict[str, Any], str]:
    """The front matter of a card that is written again, and its text above the rows.

    Raises:
        UserError: the file is not such a card.
    """
    import yaml
    from huggingface_hub import DatasetCard

    if not out.exists():
        return {}, ""
    text = out.read_text(encoding="utf8", errors="replace")
    about = ABOUT.search(text, max(0, text.find(MARK)))
    if MARK not in text or about is None:
        fix = "give --out another name, or remove the file"
        raise UserError("exists, and was not written by mlx-gemma data card", where=out, fix=fix)
    try:
        return DatasetCard(text).data.to_dict(), about[1].strip()  # type: ignore[no-untyped-call]
    except (ValueError, TypeError, yaml.YAMLError) as e:
        raise UserError(f"its front matter cannot be read: {e}", where=out, fix="mend or remove the file") from e


def _said(before: Mapping[str, Any], found: Collection[str]) -> str | None:
    """The licence that an earlier card was given for rows without one."""
    said = before.get("license_name", before.get("license"))
    return said if isinstance(said, str) and said.lower() not in map(str.lower, found) else None


def _name(data: Path) -> str:
    return data.resolve().name if data.is_dir() else data.stem


def _data_files(facts: dict[str, Facts], out: Path) -> list[dict[str, Any]]:
    paths = {name: [relative(f, out) for f in split.files] for name, split in facts.items()}
    return [{"split": SPLIT_NAMES.get(n, n), "path": p[0] if len(p) == 1 else p} for n, p in paths.items()]
