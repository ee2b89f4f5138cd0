"""The kinds of secrets, each in the form its issuer documents, and what is evidently made up.

A rule names literals ("anchors") that are part of its pattern, so that a text without them is done with after a search
for a substring. Counts are bounded or end at a character that cannot occur inside, so that the search is linear.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

MADE_UP = re.compile(
    r"xxxx|example|placeholder|redacted|changeme|dummy|sample|fake|your|\.\.\.|\*\*\*|012345|123456|abcdef|00000000",
    re.IGNORECASE,
)
PASSWORDS = re.compile(
    r"(my|the|db|your|some)?[_-]?(pass(word|wd|phrase)?|pwd|pw|secret|token|key|user(name)?|admin|root"
    r"|guest|test|foo|bar|postgres|mysql|rabbitmq|mongo|redis|hunter2|letmein|1234?5?)\d{0,3}",
    re.I,
)


def _made_up(secret: str) -> bool:
    return MADE_UP.search(secret) is not None or len(set(secret)) < 8


def _real(match: re.Match[str]) -> bool:
    return not _made_up(match["secret"])


def _real_password(match: re.Match[str]) -> bool:
    """Neither a placeholder (`password`, `$PASS`, `%s`, the user's own name) nor for a documented or local host."""
    user, secret, host = match["user"], match["secret"], match["host"].lower().rstrip(".")
    if re.search(r"[$*{}()\\]|%(?![0-9A-Fa-f]{2})", secret) or secret.lower() == user.lower():
        return False
    if (
        "." not in host
        or host.startswith("127.")
        or re.search(r"(^|\.)(example(\.\w+)?|test|invalid|localhost)$", host)
    ):
        return False
    return PASSWORDS.fullmatch(secret) is None and MADE_UP.search(secret) is None and len(set(secret)) > 2


def _decoded(part: str) -> str:
    try:
        return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()
    except (binascii.Error, ValueError):
        return ""


def _real_jwt(match: re.Match[str]) -> bool:
    """A header that names its algorithm, and not the token every tutorial shows."""
    header, payload, _ = match["secret"].split(".", 2)
    try:
        return "alg" in json.loads(_decoded(header)) and "1234567890" not in _decoded(payload)
    except (ValueError, TypeError, RecursionError):
        return False


def _real_discord(match: re.Match[str]) -> bool:
    """Discord's tokens begin with the bot's number."""
    return _decoded(match["secret"].split(".")[0]).isdecimal()


# What is one.

WORD = "[A-Za-z0-9_-]"


class Rule(NamedTuple):
    """`before`, one of `anchors`, `after`: a secret, or around its group `secret`. `real` tells what is made up."""

    name: str
    anchors: tuple[str, ...]
    after: str
    before: str = ""
    real: Callable[[re.Match[str]], bool] = _real


@cache
def pattern(rule: Rule) -> re.Pattern[str]:
    """The anchors are part of the pattern, so a text without them cannot match.

    A match begins where no word goes on, so that no run of characters is read again from each of its places.
    """
    whole = f"{rule.before}(?:{'|'.join(map(re.escape, rule.anchors))}){rule.after}"
    if "(?P<secret>" not in whole:
        whole = f"(?P<secret>{whole})"
    return re.compile(rf"(?<!{WORD}){whole}(?![A-Za-z0-9_])")


ASSIGNED = r"""["']?\]?\s{0,9}[=:,]\s{0,9}["']?"""

RULES = (
    Rule("AWS access key", ("AKIA", "ASIA", "ABIA", "ACCA"), "[A-Z0-9]{16}"),
    Rule(
        "AWS secret key",
        ("aws_secret_access_key", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "aws_secret_key", "SecretAccessKey"),
        ASSIGNED + "(?P<secret>[A-Za-z0-9/+]{40})(?![/+=])",
    ),
    Rule("Azure storage key", ("AccountKey=",), "(?P<secret>[A-Za-z0-9+/]{86}==)"),
    Rule("Google API key", ("AIza",), "[A-Za-z0-9_-]{35}"),
    Rule("Google OAuth secret", ("GOCSPX-",), "[A-Za-z0-9_-]{28}"),
    Rule("Google OAuth token", ("ya29.",), "[A-Za-z0-9_-]{30,}"),
    Rule("GitHub token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), "[A-Za-z0-9_]{36,255}"),
    Rule("GitHub token", ("github_pat_",), "[A-Za-z0-9]{22}_[A-Za-z0-9]{59}"),
    Rule(
        "GitLab token",
        (
            "glpat-",
            "gldt-",
            "glft-",
            "glsoat-",
            "glrt-",
            "glcbt-",
            "glimt-",
            "glptt-",
            "glagent-",
            "gloas-",
            "GR1348941",
        ),
        "[A-Za-z0-9_-]{20,1024}",
    ),
    Rule("Slack token", ("xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-"), r"(?:\d+-){1,4}[A-Za-z0-9]+"),
    Rule("Slack token", ("xapp-",), r"\d-[A-Z0-9]{9,12}-\d{10,14}-[a-f0-9]{64}"),
    Rule("Slack webhook", ("hooks.slack.com/services/",), r"T[A-Za-z0-9_]{8,}/B[A-Za-z0-9_]{8,}/[A-Za-z0-9_]{20,}"),
    Rule("Stripe key", ("sk_live_", "rk_live_"), "[A-Za-z0-9]{24,250}"),
    Rule("OpenAI key", ("sk-proj-", "sk-svcacct-", "sk-admin-"), "[A-Za-z0-9_-]{40,250}"),
    Rule("OpenAI key", ("T3BlbkFJ",), "[A-Za-z0-9_-]{20,}", before="sk-[A-Za-z0-9_-]{20,100}?"),
    Rule("Anthropic key", ("sk-ant-",), r"[a-z]{3,5}\d\d-[A-Za-z0-9_-]{80,120}"),
    Rule("OpenRouter key", ("sk-or-v1-",), "[0-9a-f]{64}"),
    Rule("Groq key", ("gsk_",), "[A-Za-z0-9]{52}"),
    Rule("Hugging Face token", ("hf_",), "[A-Za-z0-9]{34,40}"),
    Rule("Hugging Face token", ("api_org_",), "[A-Za-z0-9]{34,40}"),
    Rule("Replicate token", ("r8_",), "[A-Za-z0-9]{37}"),
    Rule("Weights & Biases key", ("WANDB_API_KEY", "wandb.login(key"), ASSIGNED + "(?P<secret>[0-9a-f]{40})"),
    Rule("SendGrid key", ("SG.",), r"[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{43}"),
    Rule("Mailchimp key", ("-us",), r"\d{1,2}", before="[0-9a-f]{32}"),
    Rule("Twilio key", ("AC", "SK"), "[0-9a-f]{32}"),
    Rule("Telegram bot token", (":AA",), "[A-Za-z0-9_-]{33}", before=r"\d{8,10}"),
    Rule(
        "Discord bot token",
        (".",),
        r"[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,38}",
        before="[MNO][A-Za-z0-9_-]{23,27}",
        real=_real_discord,
    ),
    Rule("npm token", ("npm_",), "[A-Za-z0-9]{36}"),
    Rule("PyPI token", ("pypi-AgEIcHlwaS5vcmc", "pypi-AgENdGVzdC5weXBpLm9yZw"), "[A-Za-z0-9_-]{50,}"),
    Rule("Docker Hub token", ("dckr_pat_",), "[A-Za-z0-9_-]{27}"),
    Rule("DigitalOcean token", ("dop_v1_", "doo_v1_", "dor_v1_"), "[0-9a-f]{64}"),
    Rule("Databricks token", ("dapi",), r"[0-9a-f]{32}(?:-\d)?"),
    Rule("Shopify token", ("shpat_", "shpss_", "shpca_", "shppa_"), "[0-9a-fA-F]{32}"),
    Rule("Square secret", ("sq0csp-", "sq0atp-"), "[A-Za-z0-9_-]{22,43}"),
    Rule("JSON Web Token", ("eyJ",), rf"{WORD}{{10,}}\.eyJ{WORD}{{10,}}\.{WORD}{{20,}}", real=_real_jwt),
    Rule(
        "private key",
        ("-----BEGIN ",),
        r"(?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\s{1,4}Proc-Type: 4,ENCRYPTED\s{1,4}DEK-Info: \S{1,80})?[^-]{0,120}?(?P<secret>[A-Za-z0-9+/]{32,})",
    ),
    Rule("private key", ("Private-Lines: ",), r"\d{1,3}\s{1,4}(?P<secret>[A-Za-z0-9+/]{32,})"),  # PuTTY's
    Rule("private key", ("AGE-SECRET-KEY-1",), "[0-9A-Z]{58}"),
    Rule(
        "password in a URL",
        ("://",),
        r"""(?P<user>[^\s:/?#\[\]@"'<>]{0,100}):(?P<secret>[^\s:/?#\[\]@"'<>]{3,200})@(?P<host>[A-Za-z0-9.-]{1,253})""",
        before=r"[A-Za-z][A-Za-z0-9+.]{1,20}",
        real=_real_password,
    ),
)
