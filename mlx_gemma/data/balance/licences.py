"""Licence names of rows: brought to SPDX form, sorted by what they ask, and compared with one another.

`spdx("Apache 2.0")` is "Apache-2.0", `kind("CC-BY-NC-4.0")` is "non-commercial". What is in the list of SPDX names of
packaging.licenses is taken as it is; ALIASES has what data sets write instead. This sorts names; it is no advice.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import combinations
from typing import Literal

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

Kind = Literal["permissive", "share-alike", "non-commercial", "no-derivatives", "own terms", "unknown"]

ALIASES = {  # after `_plain`: lower case, one blank between words, without "the", "license" and "version"
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "mit": "MIT",
    "expat": "MIT",
    "bsd": "BSD-3-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "simplified bsd": "BSD-2-Clause",
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "cc zero": "CC0-1.0",
    "odc by": "ODC-By-1.0",
    "odc by 1.0": "ODC-By-1.0",
    "odbl": "ODbL-1.0",
    "pddl": "PDDL-1.0",
    "gfdl": "GFDL-1.3-or-later",
    "psf": "PSF-2.0",
    "python": "PSF-2.0",
    "unlicense": "Unlicense",
    "wtfpl": "WTFPL",
    "mpl": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "cdla permissive 2.0": "CDLA-Permissive-2.0",
    "public domain": "public domain",
    "pd": "public domain",
}
GNU = re.compile(
    r"(?:gnu )?(?P<name>a|l)?gpl ?v?(?P<number>[23](?:\.[01])?)?(?P<later>\+| or later| or newer)?(?P<only> only)?"
)
FIRST_GNU = {"GPL": "1.0", "LGPL": "2.0", "AGPL": "3.0"}
CREATIVE = re.compile(r"(?:cc|creative commons)(?P<parts>(?: (?:by|nc|sa|nd))+)(?: (?P<number>[1-4]\.\d))?")
WORDS = {
    "attribution": "by",
    **dict.fromkeys(("noncommercial", "non commercial"), "nc"),
    **dict.fromkeys(("share alike", "sharealike"), "sa"),
    **dict.fromkeys(("no derivatives", "noderivatives", "noderivs"), "nd"),
    "lesser general public": "lgpl",
    "affero general public": "agpl",
    "general public": "gpl",
}

OWN_TERMS = re.compile(
    r"\b(?:llama|gemma|openrail|rail|qwen|deepseek|falcon|bloom|proprietary|openai|tongyi|mistral ai)\b"
)
NOTHING = {"", "unknown", "other", "none", "n/a", "na", "null", "-", "?", "unlicensed", "not specified", "unspecified"}

SHARE_ALIKE = re.compile(r"-SA-|^(?:LicenseRef-)?[AL]?GPL-|^GFDL|^ODbL|^MPL-|^EUPL|^CDLA-Sharing|^OSL-|^CECILL-2")
GPL2_ONLY = {"GPL-2.0-only", "GPL-2.0"}


def spdx(text: str) -> str | None:
    """The SPDX name or expression meant; the text, trimmed, where it is none that is known; None: it says nothing."""
    return _spdx(text.strip()[:100])


@lru_cache(maxsize=1024)
def _spdx(text: str) -> str | None:
    plain = _plain(text)
    if plain in NOTHING:
        return None
    if plain in ALIASES:
        return ALIASES[plain]
    if gnu := GNU.fullmatch(plain):
        name = (gnu["name"] or "").upper() + "GPL"
        number = gnu["number"] or FIRST_GNU[name]
        end = "or-later" if gnu["later"] or not gnu["number"] else "only"  # as SPDX reads "GPL-2.0", and FSF "GPL"
        return f"{name}-{number if '.' in number else number + '.0'}-{end}"
    if creative := CREATIVE.fullmatch(plain):
        return f"CC{creative['parts'].replace(' ', '-').upper()}-{creative['number'] or '4.0'}"
    try:
        return str(canonicalize_license_expression(re.sub(r"\s+", " ", text)))
    except (InvalidLicenseExpression, SyntaxError):
        return text


def _plain(text: str) -> str:
    text = re.sub(r"[\s_,()/-]+", " ", text.casefold().replace("n/a", "na"))
    for word, short in WORDS.items():
        text = text.replace(word, short)
    text = re.sub(r"\b(?:the|licen[sc]e[sd]?|version|international|unported)\b", " ", text)
    return " ".join(re.sub(r"\bv(?=\d)", "", text).split())


@lru_cache(maxsize=1024)
def kind(name: str) -> Kind:
    """What a name as `spdx` gives it asks, the strictest first; of "A OR B" what the more lenient asks."""
    order: tuple[Kind, ...] = ("permissive", "share-alike", "own terms", "non-commercial", "no-derivatives", "unknown")
    choices = re.split(r"\s+OR\s+", name)
    return min((max(map(_kind, re.split(r"\s+AND\s+", c)), key=order.index) for c in choices), key=order.index)


def _kind(name: str) -> Kind:
    name = name.strip("() ")
    if re.search(r"-ND(?:-|$)", name):
        return "no-derivatives"
    if re.search(r"-NC(?:-|$)|noncommercial|non-commercial", name, re.IGNORECASE):
        return "non-commercial"
    if SHARE_ALIKE.search(name):
        return "share-alike"
    if OWN_TERMS.search(re.sub(r"[\W_\d]+", " ", name.casefold())):
        return "own terms"
    if name == "public domain":
        return "permissive"
    try:
        canonicalize_license_expression(name)
    except (InvalidLicenseExpression, SyntaxError):
        return "unknown"
    return "permissive"


def conflicts(names: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """(one, other, why) of licences whose texts can hardly stand in one published work; in order of names.

    Share-alike asks that the whole has the same licence, which two different ones cannot both have; CC-BY-SA-4.0 may
    go into GPL-3.0, and ODbL-1.0 asks it of the database alone. Apache-2.0 is incompatible with GPL-2.0 alone (FSF).
    """
    for one, other in combinations(sorted(set(names)), 2):
        kinds = {kind(one), kind(other)}
        pair = {_family(one), _family(other)}
        if "GPL-2" in pair and "Apache-2.0" in {one, other} and {one, other} & GPL2_ONLY:
            yield one, other, "Apache-2.0 has conditions that GPL-2.0 does not allow"
        elif (
            {_shares(one), _shares(other)} == {True}
            and len(pair) == 2
            and not ("GPL-3" in pair and "CC-BY-SA-4.0" in {one, other})
        ):
            yield one, other, "each asks that the whole has its own licence"
        elif kinds == {"non-commercial", "share-alike"} and not (_shares(one) and _shares(other)):
            yield one, other, "one asks that everybody may use the whole, the other forbids commercial use"


def _shares(name: str) -> bool:
    return bool(SHARE_ALIKE.search(name)) and not name.startswith(("MPL-", "LGPL-", "ODbL"))


def _family(name: str) -> str:
    """Licences that go together: versions of one, and those that may be taken as a later version."""
    if name.startswith("CC-"):
        return name.rsplit("-", 1)[0]
    if name in GPL2_ONLY:
        return "GPL-2"
    if re.match(r"[AL]?GPL-", name):
        return "GPL-3"
    return name
