"""One HTML document that needs nothing else: style, script and data are inside, and the network is never asked.

    html_page(Path("page.html"), title=html("What is <b>?"), body=el("p", "a < b", class_="quiet"))

A page's template is its body, with `{{name}}` for each part; its style and script are the files beside it of the same
name, behind the common ones (html_page.css: colours for light and dark, plain elements; html_page.js: elements, numbers
and hidden characters as text). A content security policy names both by their digests and forbids all else: no text of a
part can load or run anything, even if it were markup.
`el` makes markup in which a `str` is text, and is escaped; only an `Html` is markup.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from pathlib import Path

BASE = Path(__file__)
DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}<script>{script}</script>
</body>
</html>
"""


class Html(str):
    """Markup. What is put together from it by `+` or `join` is a plain `str` again; use `html`."""

    __slots__ = ()


def html(*parts: str) -> Html:
    """Parts side by side, escaped where they are not Html."""
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def el(name: str, *children: str, **attributes: str | float) -> Html:
    """An element. Of an attribute's name a last underscore is dropped, others are hyphens: `class_`, `data_key`."""
    written = "".join(f' {k.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for k, v in attributes.items())
    return Html(f"<{name}{written}>{html(*children)}</{name}>")


def html_page(template: Path, *, title: str, **parts: str) -> str:
    """The document, to be written as UTF-8.

    Args:
        template: the page's body; .css and .js of its name are beside it.
        title, parts: markup for the template's names, escaped by the caller.
    """
    style, script = (
        BASE.with_suffix(suffix).read_text(encoding="utf8") + template.with_suffix(suffix).read_text(encoding="utf8")
        for suffix in (".css", ".js")
    )
    allowed = f"style-src {_digest(style)}; script-src {_digest(script)}"
    policy = f"default-src 'none'; {allowed}; base-uri 'none'; form-action 'none'"
    body = re.sub(r"\{\{(\w+)\}\}", lambda m: parts[m[1]], template.read_text(encoding="utf8"))
    return DOCUMENT.format(policy=policy, title=title, style=style, body=body, script=script)


def _digest(content: str) -> str:
    """The source expression that allows this inline element."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
