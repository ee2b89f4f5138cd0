"""Every kind of secret is found and masked, what looks like one is not, and no text is too odd or too long.

The secrets are drawn at run time, so that none stands in this file.
"""

from __future__ import annotations

import base64
import inspect
import json
import random
import string
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

from mlx_gemma.data.checks.personal import find_personal, personal
from mlx_gemma.data.checks.secret_rules import RULES, pattern
from mlx_gemma.data.checks.secrets import find_secrets, masked, redacted, secrets
from mlx_gemma.data.formats import Row

ALNUM = string.ascii_letters + string.digits
WORD = ALNUM + "_-"
HEX = "0123456789abcdef"
UPPER = string.ascii_uppercase + string.digits
BASE64 = ALNUM + "+/"

Draw = Callable[[Callable[[str, int], str]], str]


def jwt(some: Callable[[str, int], str]) -> str:
    parts = ({"alg": "HS256", "typ": "JWT"}, {"sub": some(ALNUM, 12)})
    encoded = [base64.urlsafe_b64encode(json.dumps(p).encode()).decode().rstrip("=") for p in parts]
    return ".".join([*encoded, some(WORD, 43)])


def pem(kind: str) -> Draw:
    def key(some: Callable[[str, int], str]) -> str:
        body = "\n".join(some(BASE64, 64) for _ in range(8))
        return f"-----BEGIN {kind}-----\n{body}\n-----END {kind}-----"

    return key


def discord(some: Callable[[str, int], str]) -> str:
    number = base64.urlsafe_b64encode(("4" + some(string.digits, 17)).encode()).decode()
    return f"{number}.{some(WORD, 6)}.{some(WORD, 27)}"


PLANTED: dict[str, tuple[str, Draw]] = {  # what it is -> the name it must be given, how one is drawn
    "AWS id": ("AWS access key", lambda some: "AK" + "IA" + some(UPPER, 16)),
    "AWS temporary id": ("AWS access key", lambda some: "AS" + "IA" + some(UPPER, 16)),
    "AWS secret": ("AWS secret key", lambda some: f'aws_secret_access_key = "{some(BASE64, 40)}"'),
    "Azure": ("Azure storage key", lambda some: "Account" + f"Key={some(BASE64, 86)}=="),
    "Google API": ("Google API key", lambda some: "AI" + "za" + some(WORD, 34) + "x"),
    "Google client": ("Google OAuth secret", lambda some: "GOC" + "SPX-" + some(WORD, 27) + "x"),
    "Google access": ("Google OAuth token", lambda some: "ya" + "29." + some(WORD, 80)),
    "GitHub": ("GitHub token", lambda some: "gh" + "p_" + some(ALNUM, 36)),
    "GitHub server": ("GitHub token", lambda some: "gh" + "s_" + some(ALNUM, 36)),
    "GitHub fine-grained": ("GitHub token", lambda some: f"github{'_pat_'}{some(ALNUM, 22)}_{some(ALNUM, 59)}"),
    "GitLab": ("GitLab token", lambda some: "gl" + "pat-" + some(WORD, 20)),
    "Slack bot": (
        "Slack token",
        lambda some: f"xo{'xb'}-{some(string.digits, 12)}-{some(string.digits, 12)}-{some(ALNUM, 24)}",
    ),
    "Slack app": ("Slack token", lambda some: f"xa{'pp'}-1-A{some(UPPER, 10)}-{some('3456789', 13)}-{some(HEX, 64)}"),
    "Slack webhook": (
        "Slack webhook",
        lambda some: f"https://hooks.slack.com/serv{'ices'}/T{some(UPPER, 10)}/B{some(UPPER, 10)}/{some(ALNUM, 24)}",
    ),
    "Stripe": ("Stripe key", lambda some: "sk_" + "live_" + some(ALNUM, 24)),
    "OpenAI, first form": ("OpenAI key", lambda some: f"s{'k-'}{some(ALNUM, 20)}T3Blbk{'FJ'}{some(ALNUM, 20)}"),
    "OpenAI, project": ("OpenAI key", lambda some: f"s{'k-'}proj-{some(WORD, 74)}T3Blbk{'FJ'}{some(WORD, 74)}"),
    "Anthropic": ("Anthropic key", lambda some: "sk-" + "ant-api03-" + some(WORD, 93) + "AA"),
    "OpenRouter": ("OpenRouter key", lambda some: "sk-" + "or-v1-" + some(HEX, 64)),
    "Groq": ("Groq key", lambda some: "gs" + "k_" + some(ALNUM, 52)),
    "Hugging Face": ("Hugging Face token", lambda some: "h" + "f_" + some(string.ascii_letters, 34)),
    "Hugging Face organisation": ("Hugging Face token", lambda some: "api_" + "org_" + some(string.ascii_letters, 34)),
    "Replicate": ("Replicate token", lambda some: "r" + "8_" + some(ALNUM, 37)),
    "wandb": ("Weights & Biases key", lambda some: f"export WANDB_API_KEY={some(HEX, 40)}"),
    "SendGrid": ("SendGrid key", lambda some: f"S{'G'}.{some(WORD, 22)}.{some(WORD, 43)}"),
    "Mailchimp": ("Mailchimp key", lambda some: some(HEX, 32) + "-us" + "12"),
    "Twilio": ("Twilio key", lambda some: "S" + "K" + some(HEX, 32)),
    "Telegram": ("Telegram bot token", lambda some: f"{some('3456789', 10)}:A{'A'}{some(WORD, 33)}"),
    "Discord": ("Discord bot token", discord),
    "npm": ("npm token", lambda some: "np" + "m_" + some(ALNUM, 36)),
    "PyPI": ("PyPI token", lambda some: "py" + "pi-AgEIcHlwaS5vcmc" + some(WORD, 90)),
    "Docker Hub": ("Docker Hub token", lambda some: "dckr" + "_pat_" + some(WORD, 27)),
    "DigitalOcean": ("DigitalOcean token", lambda some: "dop" + "_v1_" + some(HEX, 64)),
    "Databricks": ("Databricks token", lambda some: "da" + "pi" + some(HEX, 32)),
    "Shopify": ("Shopify token", lambda some: "shp" + "at_" + some(HEX, 32)),
    "Square": ("Square secret", lambda some: "sq0" + "csp-" + some(WORD, 43)),
    "JSON Web Token": ("JSON Web Token", jwt),
    "RSA key": ("private key", pem("RSA " + "PRIVATE KEY")),
    "PKCS#8 key": ("private key", pem("PRIVATE " + "KEY")),
    "OpenSSH key": ("private key", pem("OPENSSH " + "PRIVATE KEY")),
    "PGP key": ("private key", pem("PGP PRIVATE " + "KEY BLOCK")),
    "PuTTY key": ("private key", lambda some: f"Private-Lines: 8\n{some(BASE64, 64)}\n{some(BASE64, 64)}"),
    "age key": ("private key", lambda some: "AGE-SECRET" + "-KEY-1" + some(UPPER, 58)),
    "database URL": (
        "password in a URL",
        lambda some: f"postgresql://shop:{some(ALNUM, 14)}@db.shop-intern.de:5432/orders",
    ),
    "Atlas URL": ("password in a URL", lambda some: f"mongodb+srv://shop:{some(ALNUM, 14)}@cluster0.mongodb.net/x"),
}
CONTEXTS = (
    "{}",
    'KEY = "{}"\n',
    "key: {}",
    "Use `{}` here.",
    "密钥{}。",
    '{{"token": "{}"}}',
    "<{}>",
    "x=1;{};",
    "\r\n{}\r\n",
)


def drawn(what: str) -> Iterator[str]:
    """Eight secrets of a kind, each in every context."""
    rng = random.Random(what)
    for _ in range(8):
        secret = PLANTED[what][1](lambda alphabet, n: "".join(rng.choices(alphabet, k=n)))
        yield from (context.format(secret) for context in CONTEXTS)


def row(*contents: str) -> Row:
    roles = ("user", "assistant")
    return Row([{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)], "rows.jsonl:1")


@pytest.mark.parametrize("what", PLANTED)
def test_every_kind_is_found_in_every_context(what: str) -> None:
    name = PLANTED[what][0]
    missed = [text for text in drawn(what) if name not in {f.name for f in find_secrets(text)}]
    assert missed == []


def test_every_rule_is_planted() -> None:
    texts = [text for what in PLANTED for text in drawn(what)]
    assert {name for name, _ in PLANTED.values()} == {rule.name for rule in RULES}
    assert [rule for rule in RULES if not any(pattern(rule).search(text) for text in texts)] == []


def test_a_text_without_an_anchor_cannot_match() -> None:
    for what in PLANTED:
        for text in drawn(what):
            for rule in RULES:
                for match in pattern(rule).finditer(text):
                    assert any(anchor in match[0] for anchor in rule.anchors)


def test_nothing_that_detect_secrets_finds_is_missed() -> None:
    """Its detectors of one issuer's form each; the entropy, keyword and IP detectors are left out."""
    theirs = [c() for c in get_mapping_from_secret_type_to_class().values() if not inspect.isabstract(c)]
    left_out = ("Base64HighEntropyString", "HexHighEntropyString", "KeywordDetector", "IPPublicDetector")
    theirs = [plugin for plugin in theirs if type(plugin).__name__ not in left_out]
    assert len(theirs) > 20
    found = set()
    for what in PLANTED:
        for text in drawn(what):
            by = {type(p).__name__ for p in theirs for line in text.splitlines() if any(p.analyze_string(line))}
            assert not by or find_secrets(text), (by, text)
            found |= by
    assert len(found) >= 15  # it was given something to find


def test_the_secret_is_never_shown() -> None:
    for what, (name, _) in PLANTED.items():
        for text in drawn(what):
            found = find_secrets(text)
            hidden = [text[start:end] for _, start, end in found]
            shown = [r.message for r in secrets(row("Question", text))]
            assert not any(secret[5:] in message for message in shown for secret in hidden)
            assert not any(secret[5:] in redacted(text, found) for secret in hidden)
            assert any(r.name == name and r.check == "secrets" for r in secrets(row(text, "Answer")))


def test_place_and_mask() -> None:
    token = "h" + "f_" + "QmZrTbVxKwNpLsGdHjFyCtRvBnMkWqXzPa"
    (reason,) = secrets(row("Hello", f'import os\nlogin("{token}")'))
    assert reason.message == "turn 2 (assistant), line 2, column 8: Hugging Face token hf_Q… (37 characters)"
    assert masked("hunter") == "h… (6 characters)"
    assert redacted(f"a {token} b", find_secrets(f"a {token} b")) == "a hf_Q… (37 characters) b"


@pytest.mark.parametrize(
    "text",
    [
        "AKIA" + "IOSFODNN7EXAMPLE",
        "AKIA" + "X" * 16,
        'aws_secret_access_key = "' + "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + 'EXAMPLEKEY"',
        "ghp_" + "x" * 36,
        "ghp_" + "1234567890" * 3 + "abcdef",
        "hf_" + "your_token_here_xxxxxxxxxxxxxxxxxxx",
        "sk-" + "proj-" + "your-key-goes-here-" * 4,
        'if "-----BEGIN ' + 'PRIVATE KEY-----" in text:\n    raise ValueError("a key")',
        "-----BEGIN RSA " + "PRIVATE KEY-----\n...\n-----END RSA PRIVATE KEY-----",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0."
        + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "eyJhbGci.method_of.something_long_enough_to_be_one",
        "postgres://user:password@db.shop.com/x",
        "postgres://admin:Tr0ub4dor@localhost:5432/x",
        "https://{user}:{password}@api.shop.com",
        'f"https://{user}:%s@api.shop.com" % password',
        "http://shop:$PASSWORD@api.shop.com",
        "https://user:secret-word@example.com/path",
        "http://[::1]:8080/a@b",
        "https://a.com:8080/@scope/name",
        "password = 'secret123'",
        'API_KEY = os.environ["API_KEY"]',
        "token = secrets.token_hex(16)",
        "hashlib.sha256(b'').hexdigest() == 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'",
        "SKILLS = AC + SK",
        "uuid 550e8400-e29b-41d4-a716-446655440000",
        "data:image/png;base64," + "iVBORw0KGgo" * 20,
        "Naming_conventions_matter.method.and_a_long_long_method_name_here",
    ],
)
def test_what_looks_like_a_secret_and_is_none(text: str) -> None:
    assert [text[start:end] for _, start, end in find_secrets(text)] == []


def test_the_data_sets_and_the_standard_library_hold_no_secret() -> None:
    """All of datasets/python3, and 60 files of the standard library drawn at random."""
    root = Path(sysconfig.get_paths()["stdlib"])
    files = sorted(f for f in root.rglob("*.py") if "site-packages" not in f.parts)
    texts = [f.read_text(errors="replace") for f in random.Random(1).sample(files, 60)]
    texts += [m["content"] for m in _messages("datasets/python3/raw.jsonl")]
    assert [f for text in texts for f in find_secrets(text)] == []
    data = [f for text in texts[60:] for f in find_personal(text)]
    assert data == []


def _messages(path: str) -> Iterator[dict[str, str]]:
    with (Path(__file__).parents[2] / path).open() as lines:
        for line in lines:
            yield from json.loads(line)["messages"]


MIB = 2**20
HOSTILE = [
    "",
    "\0",
    "\x00\x1b[31m\u202e\ufeff\u2028" * 100,
    "a" * MIB,
    "eyJ" * (MIB // 3),
    "eyJ." * (MIB // 4),
    "1" * MIB,
    "1 " * (MIB // 2),
    "1.1." * (MIB // 4),
    "+1(" * (MIB // 3),
    "a@" * (MIB // 2),
    "a." * (MIB // 2),
    "://a:" * (MIB // 5),
    "http://a:b" * (MIB // 10),
    "-----BEGIN " * (MIB // 11),
    "-----BEGIN PRIVATE KEY-----" * (MIB // 27),
    "sk-" * (MIB // 3),
    "xoxb-1-" * (MIB // 7),
    "AB12 " * (MIB // 5),
    "2:" * (MIB // 2),
    "2001:" * (MIB // 5),
    "\n" * MIB,
    "[" * 10_000 + "]" * 10_000,
    "٣" * 1000 + "@٣.com +٣٣٣ (٣٣٣) ٣٣٣",
    "a@b." * (MIB // 4),
    "M.a" * (MIB // 3),
    "+1 2" * (MIB // 4),
    "M" + "N" * 24 + "." + "O" * MIB,
    "gh" + "p_" + "a_" * (MIB // 2),
    "4" * 16 + " card",
    "4532948176049184 " * (MIB // 17),
    "a.sommer@uni-sb.de " * (MIB // 19),
    "😀" * 1000,
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_no_text_takes_long(number: int) -> None:
    text = HOSTILE[number]
    began = time.process_time()
    list(secrets(row(text or "?", "Answer")))
    list(personal(row("Question", text or "?")))
    assert time.process_time() - began < 10  # 0.1 to 2 s; the square of 1 MiB would take hours


def test_random_texts_raise_nothing() -> None:
    rng = random.Random(3)
    pieces = [anchor for rule in RULES for anchor in rule.anchors]
    pieces += ["@", "+", "://", ":", ".", "-", "\0", "\n", "\r", "é", "٣", "(", "4", "DE", "\u2028", "=", '"', "Ⅷ", "²"]
    for _ in range(3000):
        text = "".join(
            rng.choice(pieces) + "".join(rng.choices(WORD, k=rng.randrange(40))) for _ in range(rng.randrange(9))
        )
        list(secrets(row(text, text)))
        list(personal(row(text, text)))
