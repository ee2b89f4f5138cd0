"""UTF-8 that was read as Windows-1252 or Latin-1: "Ã©" for "é", "â€™" for an apostrophe.

A rule of byte sequences, as UTF-8's own: a lead byte and its continuation bytes, each seen as the character it became.
A letter beside a sign is good text in many languages ("CAFÉ»", "voilà »", "Ä…"), so that single pairs count only where
they are hardly anything else, and others where two follow one another, as in "Ð¿Ñ€".
"""

from __future__ import annotations

import re

# What a continuation byte, 0x80 to 0xBF, becomes in either encoding.
NEXT = re.escape(
    "".join(sorted({bytes([b]).decode(e, "ignore") for b in range(128, 192) for e in ("latin-1", "cp1252")}))
)
SIGNS = "\xa0\xbb\u2026\u2013\u2014\u2019\u201d"  # of these, what stands behind letters: no-break space, quotes, dashes
ONE = f"(?![{SIGNS}])[{NEXT}]"
SMALL = "(?<![A-ZÀ-Þ])"  # not the end of a word in capitals

MOJIBAKE = re.compile(
    f"""
      â(?:\u20ac | \u201d[{NEXT}] | {ONE}[{NEXT}])      # punctuation, frames, arrows and other signs
    | ï»¿ | ï¿½ | ï¼[{NEXT}] | ð[Ÿ\x9f]                 # byte order mark, U+FFFD, wide forms, emoji
    | {SMALL}[ÂÃ]{ONE} | {SMALL}Â\xa0 | {SMALL}Ã\xa0(?=[a-z\\s])    # accented Latin letters, signs
    | (?<=[a-z])[ÄÅ]{ONE} | [ÄÅ]{ONE}(?=[a-z]) | (?<=[a-z])Ä…(?=[a-z])   # letters of Central Europe
    | (?:[\xc2-\xdf][{NEXT}]){{2,}}                     # Greek, Cyrillic, Hebrew, Arabic
    | (?:[\xe0-\xef][{NEXT}][{NEXT}]){{2,}}             # Indic, Thai, Chinese, Japanese, Korean
    """,
    re.VERBOSE,
)
