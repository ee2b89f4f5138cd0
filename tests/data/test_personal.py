"""Personal data is found and masked; what is made up, reserved or nobody's is not. No number here is a person's."""

from __future__ import annotations

import pytest

from mlx_gemma.data.checks.personal import find_personal, iban_remainder, luhn, personal
from mlx_gemma.data.formats import Row


def row(*contents: str) -> Row:
    return Row(
        [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)], "rows.jsonl:1"
    )


def luhn_complete(digits: str) -> str:
    total = sum(sum(divmod(int(d) * (2 - i % 2), 10)) for i, d in enumerate(reversed(digits)))
    return digits + str(-total % 10)


def iban_complete(country: str, account: str) -> str:
    number = int("".join(str(int(c, 36)) for c in account + country + "00"))
    return f"{country}{98 - number % 97:02}{account}"


VISA = luhn_complete("453294817604918")
AMEX = luhn_complete("34718205936127")
GERMAN = iban_complete("DE", "500105175407324931")

PERSONAL = {
    "write to steven.bethard@gmail.com.": "e-mail address",
    "Raymond <rhettinger+list@users.python-verein.de>": "e-mail address",
    "mail(to='m.sommer@uni-sb.de')": "e-mail address",
    "call (415) 362-2671 today": "phone number",
    "tel: 212-736-5000": "phone number",
    "+1 212 736 5000": "phone number",
    "+49 (0)681 302-2070": "phone number",
    "tel:+31641044153": "phone number",
    "+33 6 42 71 98 30": "phone number",
    " ".join(VISA[i : i + 4] for i in (0, 4, 8, 12)): "card number",
    f"my credit card is {VISA}": "card number",
    f"{AMEX[:4]} {AMEX[4:10]} {AMEX[10:]}": "card number",
    GERMAN: "IBAN",
    "IBAN: " + " ".join(GERMAN[i : i + 4] for i in range(0, 22, 4)): "IBAN",
    iban_complete("NO", "86011117947"): "IBAN",
    "from ([24.201.139.93] helo=x)": "IP address",
    'HOST = "93.184.215.14"': "IP address",
    "http://93.184.215.14:8080/": "IP address",
    "ping 2a01:4f8:c17:b0f::2": "IP address",
}
NOT_PERSONAL = [
    "user@example.com",
    "name@mail.example.org",
    "test@test.com",
    "you@domain.com",
    "info@python-verein.de",
    "a@b.co",
    "git@github.com:owner/repo.git",
    "https://user@python.org/",
    "y = x@w.T",
    "a@b.to(device)",
    "(q@k.mean())",
    "@app.route",
    "jane.doe@gmail.com",
    "x @ y",
    "first@second@third.com",
    "555-0123",
    "(415) 555-2671",
    "123-456-7890",
    "+1 555 123 4567",
    "2024-01-31",
    "x = a +442071838750",
    "+1000000007",
    "Decimal('+35236450.6')",
    "+447700900123",
    "3.14159-2.718-1234",
    "800-900",
    "+12345678901",
    "ISBN 978-3-16-148410-0",
    "4111 1111 1111 1111",
    "4242424242424242",
    f"n = {VISA}",
    "1234 5678 9012 3456",
    VISA[:4] + " 1111 2222 " + VISA[12:],
    "DE89 3704 0044 0532 0130 00",
    "GB82WEST12345698765432",
    GERMAN[:-1] + str((int(GERMAN[-1]) + 1) % 10),
    "AB12CDEF",
    "127.0.0.1",
    "192.168.1.20",
    "10.0.0.5",
    "0.0.0.0",
    "255.255.255.0",
    "203.0.113.7",
    "8.8.8.8",
    "1.2.3.4",
    "version 2.31.0.1",
    "1.3.6.1.4.1.311",
    "93.184.216.0/24",
    "999.999.999.999",
    "2001:db8::1",
    "::1",
    "fe80::1",
    "12:30:45",
    "x[1::2]",
    "de:ad:be:ef:00:01",
    "42.42.42.42",
    "123.45.67.89",
]


@pytest.mark.parametrize(("text", "name"), PERSONAL.items())
def test_personal_data_is_found_and_masked(text: str, name: str) -> None:
    (reason,) = personal(row("Question", text))
    assert (reason.check, reason.name) == ("personal", name)
    ((_, start, end),) = find_personal(text)
    assert text[start + 4 : end] not in reason.message


@pytest.mark.parametrize("text", NOT_PERSONAL)
def test_what_is_nobodys(text: str) -> None:
    assert [(name, text[start:end]) for name, start, end in find_personal(text)] == []


def test_the_sums_are_those_of_the_standards() -> None:
    """ISO/IEC 7812's example of Luhn's sum, and the SWIFT registry's IBANs."""
    assert luhn("49927398716")
    assert not luhn("49927398717")
    for iban in ("GB29NWBK60161331926819", "FR1420041010050500013M02606", "NO9386011117947"):
        assert iban_remainder(iban) == 1
    assert iban_remainder("GB29NWBK60161331926818") != 1
