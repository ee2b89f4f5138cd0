"""The page of an audit: its numbers, its bounds, that nothing gets out of it; and what a browser makes of it."""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mlx_gemma.cli import main
from mlx_gemma.data.audit import audit
from mlx_gemma.data.audit.cache import audit_files
from mlx_gemma.data.audit.page import page
from mlx_gemma.data.audit.page.plots import boxes
from mlx_gemma.data.audit.page.text import SHOWN, clean, differences, marked
from mlx_gemma.data.audit.rendering import Rendering
from mlx_gemma.data.formats import BadRow, Row
from mlx_gemma.data.policy import FilterPolicy
from mlx_gemma.data.visible import HIDDEN
from mlx_gemma.errors import DataError

RAW = Path(__file__).parents[2] / "datasets" / "python3" / "raw.jsonl"
TOKEN = "hf_" + "aB3dE5fG7hJ9kL1mN3pQ5rS7tU9vW1xY2z"  # of that form, and nobody's
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</details></main><style>*{display:none}</style><!--",
    "\"'`&quot;&lt;{{script}}",
    "\x1b[2J\x07\x00\x9b31m",
    "\N{RIGHT-TO-LEFT OVERRIDE}abc\u2066\u200b\ufeff\u2028",
    "\ud800 half",
    f"token {TOKEN}, mail to ada.lovelace@byron.co.uk",
    "⟦✂⟧",
]


def row(prompt: str, answer: str, where: str, **extra: Any) -> Row:
    return Row([{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}], where, extra)


def hostile() -> list[Row | BadRow]:
    """Every text in every place: prompts, answers, names of things, files, and in what is said of bad rows."""
    rows: list[Row | BadRow] = [
        row(f"{h} {i}", f"{h}\n```python\nprint {i}\n```\n", f"{h}:{i}", task=h, license=h, source=h, reasoning=h)
        for i, h in enumerate(HOSTILE)
    ]
    rows += [row(f"{h} {i}", f"{h}\n```python\nprint({i})\n```\n", f"{h}:c{i}") for i, h in enumerate(HOSTILE)]
    rows += [row(f"{h} {i}", f"{h}\n```python\nprint({i})\n```\n", f"{h}:d{i}") for i, h in enumerate(HOSTILE)]
    return [*rows, *(BadRow(h, h, h) for h in HOSTILE)]


class Elements(HTMLParser):
    """What a document consists of."""

    def __init__(self) -> None:
        super().__init__()
        self.names, self.attributes, self.scripts = set[str](), set[str](), 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.scripts += tag in ("script", "style")


def words(document: str) -> str:
    """The text of the body, one blank between words."""
    body = re.sub(r"<script>.*?</script>", "", document.split("<body>")[1], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


@pytest.fixture
def few() -> list[Row | BadRow]:
    code = "```python\n{}\n```"
    return [
        row("Count to three.", code.format("for i in range(3):\n    print(i)"), "a.jsonl:1", task="loops"),
        row("Count to ten.", code.format("for i in xrange(10):\n    print(i)"), "a.jsonl:2", task="loops"),
        row("Say hello.", code.format('print "hello"'), "a.jsonl:3", task="talk"),
        row("Say bye.", code.format("print('bye'"), "a.jsonl:4", task="talk"),
        row("Count to three.", code.format("for i in range(3):\n    print(i)"), "a.jsonl:5", task="loops"),
        row("Log in.", f"Use {TOKEN} for that.", "a.jsonl:6"),
        BadRow("a.jsonl:7", "no JSON", "mend it"),
    ]


def test_the_counts_are_the_reports(few: list[Row | BadRow]) -> None:
    report = audit(few, FilterPolicy(malformed="reject", limits={"python2": 0.1, "unsafe": 0.5}))
    document = page(report)
    text = words(document)
    assert report.rejected_count == 6
    assert "rows read 7 kept 1" in text
    bar = re.search(r'<svg class="stacked".*?</svg>', document, re.DOTALL)
    assert bar is not None
    shown = {label: int(n) for label, n in re.findall(r"<title>([^:]*): (\d+) rows", bar[0])}
    assert sum(shown.values()) == report.read  # every row once
    assert shown["kept"] == report.kept_count
    for check, n in report.found().items():
        cards = re.findall(rf'id="check-{check}" data-check="{check}">(.*?)</summary>', document, re.DOTALL)
        assert len(cards) == (n > 0)
        assert all(re.findall(r'class="numbers">(\d+)<', card) == [str(n)] for card in cards)
    assert "Beyond a limit of the policy: python2: 2 of 7 rows (28.57%), the limit is 10.00%" in text
    assert "✗ beyond: Python 2: 2 rows, 28.57%" in text
    assert "✓ unsafe: 0 rows" in text
    assert "Not looked for: runs, contamination, semantic ." in text


def test_what_was_found_is_marked_where_it_is(few: list[Row | BadRow]) -> None:
    document = page(audit(few, FilterPolicy(malformed="reject")))
    marks = re.findall(r'<mark title="([^"]*)">([^<]*)</mark>', document)
    assert ("line 2, column 10: xrange: Python 3 has range", "xrange") in marks
    assert any(what == "print" and "print statement" in title for title, what in marks)
    assert TOKEN not in document
    assert TOKEN[:12] not in document
    assert any(f"({len(TOKEN)} characters)" in what for _, what in marks)


@pytest.mark.parametrize(
    ("text", "at", "expected"),
    [
        ("for i in xrange(3)", 9, "for i in <mark>xrange</mark>(3)"),
        ("a\n", 1, "a<mark></mark>\n"),
        ("", 0, "<mark></mark>"),
        ("a \x1b[2J", 2, "a <mark>\\x1b[</mark>2J"),
        (f"is {TOKEN} it", 3, "is <mark>hf_a… (37 characters)</mark> it"),
        (f"is {TOKEN} it", 8, "is <mark>hf_a… (37 characters)</mark> it"),
        (f"is {TOKEN} it", 0, "<mark>is</mark> <mark>hf_a… (37 characters)</mark> it"),
    ],
)
def test_marks(text: str, at: int, expected: str) -> None:
    assert re.sub(r' title="[^"]*"', "", marked(text, [(at, "why")])) == expected


def test_of_a_long_text_the_part_around_the_first_finding_is_shown() -> None:
    text = "x" * 50_000 + f" here {TOKEN} " + "y" * 50_000
    shown = words("<body>" + marked(text, [(50_001, "why")]))
    assert len(shown) < 2 * SHOWN
    assert " here hf_a… (37 characters) yyy" in shown
    assert "49,601 characters before" in shown
    assert "characters more" in shown
    # A secret across the edge of what is shown is masked whole.
    for edge in range(len(TOKEN)):
        cut = "z " * 800
        assert TOKEN[:8] not in marked(cut[edge:] + TOKEN + " tail" * 900)
        assert TOKEN[:8] not in differences(cut[edge:] + TOKEN, "other")[0]


def test_differences_are_marked_on_both_sides() -> None:
    assert differences("add a to b", "add x to b") == (
        "add <mark>a</mark> to b",
        "add <mark>x</mark> to b",
    )


def test_one_line_of_anything() -> None:
    assert (
        clean(f"mail\n ada.lovelace@byron.co.uk\x1b {TOKEN}") == "mail ada.… (24 characters)\\x1b hf_a… (37 characters)"
    )


def test_boxes_stay_on_the_plot_with_any_lengths() -> None:
    points = ("p5", "p25", "p50", "p75", "p95", "p99")
    for values in ((0, 0, 0, 0, 0, 0), (1, 1, 1, 1, 1, 1), (3, 9, 10, 12, 5_000, 10**6), (5, 6, 7, 8, 9, 10)):
        for cut in (None, 1, 16, 10**7):
            plot = boxes([("a", dict(zip(points, map(float, values), strict=True)))], cut)
            assert all(0 <= float(x) <= 100 for x in re.findall(r'(?:x|x1|x2|width)="([\d.-]+)%"', plot))
    assert boxes([("nothing", {})]) == ""


def test_texts_stay_text_and_nothing_private_or_hidden_is_shown() -> None:
    document = page(audit(hostile(), FilterPolicy(malformed="reject", near_duplicates="keep")))
    assert not HIDDEN.search(document)
    document.encode("utf8")
    assert TOKEN not in document
    assert "ada.lovelace" not in document
    seen = Elements()
    seen.feed(document)
    assert seen.names.isdisjoint({"img", "a", "iframe", "object", "embed", "link", "base", "form", "foreignobject"})
    assert not seen.attributes & {"src", "href", "style", "onerror", "onload", "xmlns"}
    assert seen.scripts == 2  # the page's own style and script
    assert not re.search(r"@import|url\(|https?:", document.split("<body>")[0])


def test_many_and_long_rows_take_no_more_than_two_megabytes() -> None:
    # Of each check some rows are shown, and of these a part; what is escaped takes up to six times its room. Here are
    # as many as that, and as long, and fewer than are checked in other processes (spool.FEW).
    long = "<&\"'\u202e" * 340
    rows: list[Row | BadRow] = [row("long", "<&\"'\u202e" * 12_000, "a:1")]
    for i in range(20):
        turns = [{"role": r, "content": f"{i} {r} {long}"} for _ in range(4) for r in ("user", "assistant")]
        turns[-1]["content"] = f"```python\nprint {i}\n```\n{long}"
        rows.append(Row(turns, f"{'<' * 300}:{i}", {"task": f"{i}{'&' * 300}", "license": "<" * 500}))
    report = audit([*rows, *rows[3:13]], FilterPolicy(python2="keep", near_duplicates="keep"))
    size = len(page(report).encode())
    assert 500_000 < size < 2_000_000


def test_the_users_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    line = json.dumps({"prompt": "Say 1.", "completion": "```python\nprint 1\n```"}) + "\n"
    file.write_text(line)
    audit_files(str(file), FilterPolicy())
    report = audit_files(str(file), FilterPolicy())
    assert report.from_cache
    assert "print statement" in page(report)
    file.write_text("\n" + line)
    with pytest.raises(DataError, match="changed"):
        page(report)


def test_the_command(few: list[Row | BadRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "audit.html"
    data.write_text("".join(json.dumps(r.as_json()) + "\n" for r in few if isinstance(r, Row)))
    for target, status in ((out, 0), (data, 2)):
        monkeypatch.setattr(sys, "argv", ["mlx-gemma", "audit", str(data), "--html", str(target)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == status
    assert "<h1>rows.jsonl</h1>" in out.read_text(encoding="utf8")
    assert data.read_text().startswith("{")


# In a browser


@pytest.fixture(scope="module")
def document() -> str:
    """The first 400 rows of the raw set, with nano's tokens."""
    lines = RAW.read_text(encoding="utf8").splitlines()[:400]
    rows = [Row(r.pop("messages"), f"raw.jsonl:{n}", r) for n, r in enumerate(map(json.loads, lines), 1)]
    report = audit(rows)
    rendering = Rendering("nano", None, 96, "all")
    report.whole |= rendering.count(report.kept_rows(), rendering.folder(), lambda n: None)
    return page(report)


def visible_rows(view: Any) -> int:
    return sum(row.is_visible() for row in view.locator(".example").all())


def test_histograms(show: Callable[..., Any], document: str) -> None:
    """The columns add up to the kept rows, and the cut is where the recipe's length is."""
    view = show(document)
    kept = int(view.locator(".figures dd").nth(1).text_content().split()[0])
    for n, cut in ((0, 1), (1, 0)):
        plot = view.locator("#lengths svg.columns").nth(n)
        titles = plot.locator("title").all_text_contents()
        assert sum(int(t.split(": ")[1].split()[0].replace(",", "")) for t in titles) == kept
        assert plot.locator("line.cut").count() == cut
    whole = view.locator("#lengths svg.columns").first
    line, boxes_ = whole.locator("line.cut").bounding_box(), [r.bounding_box() for r in whole.locator("rect").all()]
    lasts = [int(t.split(" to ")[1].split(":")[0]) for t in whole.locator("title").all_text_contents()]
    before = sum(box["x"] + box["width"] / 2 < line["x"] for box in boxes_)
    assert lasts[before - 1] < 96 <= lasts[before] + 1  # of the fixture


def test_filters(show: Callable[..., Any], document: str) -> None:
    view = show(document)
    assert visible_rows(view) == 0  # all closed
    view.locator("#check").select_option("python2")
    assert visible_rows(view) == 20
    assert view.locator(".check:visible").count() == 1
    view.locator("#check").select_option("")
    view.locator("#check-python2 .bars button", has_text="print statement").click()
    named = view.locator('.example[data-names~="print"]:visible')
    assert 0 < visible_rows(view) == named.count() < 20
    assert view.locator("#check-python2 .bars button[aria-pressed=true]").count() == 1
    view.locator("#check-python2 .bars button", has_text="print statement").click()
    assert visible_rows(view) == 20
    view.locator("#check").select_option("")
    view.locator("#text").fill("XRANGE")
    rows = [r for r in view.locator(".example").all() if r.is_visible()]
    assert 0 < len(rows) < 60
    assert all("xrange" in r.text_content() for r in rows)
    assert view.locator("#count").text_content().startswith(f"{len(rows)} of the ")
    view.locator("#text").fill("no such text")
    assert visible_rows(view) == 0
    assert view.locator(".check:visible").count() == 0


def test_a_row_opens_and_all_open(show: Callable[..., Any], document: str) -> None:
    view = show(document)
    view.locator("#check-near_duplicates > summary").click()
    view.locator("#check-near_duplicates .example > summary").first.click()
    assert view.locator("#check-near_duplicates .sides mark").first.is_visible()
    view.locator("#open").click()
    assert view.locator(".example[open]").count() == view.locator(".example").count()
    view.locator("#open").click()
    assert view.locator(".example[open]").count() == 0
    assert view.locator("#samples mark.trained").first.text_content().endswith("<turn|>")
    titles = view.locator("#lengths figcaption").all_text_contents()
    assert titles == [
        "Tokens of the kept rows",
        "Rows by their tokens",
        "Rows by their trained tokens",
        "Characters of all rows",
        "Tokens by task type",
    ]
    assert view.locator("#lengths figure").first.locator("line.cut").count() == 3


def test_without_javascript_all_but_the_filter_is_there(show: Callable[..., Any], document: str) -> None:
    view = show(document, java_script_enabled=False)
    assert view.locator("#controls").is_hidden()
    assert "rows would not be trained" in view.locator(".headline").text_content()
    assert view.locator("svg.stacked rect").count() > 3
    view.locator("#check-python2 > summary").click()
    view.locator("#check-python2 .example > summary").first.click()
    assert view.locator("#check-python2 .example mark").first.is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_width(show: Callable[..., Any], document: str, scheme: str) -> None:
    view = show(document, viewport={"width": 360, "height": 640}, color_scheme=scheme, has_touch=True)
    view.locator("#open").tap()
    assert view.evaluate("document.documentElement.scrollWidth") <= 360
    for card in view.locator(".check > summary .numbers").all():
        box = card.bounding_box()
        assert box["x"] + box["width"] <= 360


def test_hostile_texts_run_nothing(show: Callable[..., Any]) -> None:
    # `show` fails on an error, a dialog, or a request.
    view = show(page(audit(hostile(), FilterPolicy(malformed="reject", near_duplicates="keep"))))
    view.locator("#open").click()
    assert view.locator("img").count() == 0
    assert view.locator("script").count() == 1
    assert view.locator("body style").count() == 0
    assert any(t.startswith(HOSTILE[0]) for t in view.locator(".example pre").all_text_contents())
    assert view.locator("footer").is_visible()
