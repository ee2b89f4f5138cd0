"""Personal data in any turn of a row: e-mail addresses, phone and card numbers, IBANs, public IP addresses.

Rules that check what can be checked: Luhn's sum and the issuer's prefix of a card (ISO/IEC 7812), the remainder by 97
and the country's length of an IBAN (ISO 13616), the plan of a North American number, the country code of others (ITU
E.164). What is reserved for documentation, is known from manuals, or stands for a role (`info@`) is no finding. The
phonenumbers library would know each country's plan, but takes 48 MB; names and postal addresses are not looked for.

Nothing is found in datasets/python3. In the standard library's source (31.5 million characters): 348 e-mail addresses,
most of its authors and of quoted mail, 48 IP addresses and 8 phone numbers, most of tests; no card, no IBAN.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from mlx_gemma.data.checks.secrets import Found, reasons, without_overlaps
from mlx_gemma.data.formats import Row
from mlx_gemma.data.reason import Reason


def personal(row: Row) -> Iterator[Reason]:
    """The personal data in every turn, each with its turn, line and column, masked."""
    return reasons("personal", row, find_personal)


def find_personal(text: str) -> list[Found]:
    """The personal data in a text, in order, none overlapping another. Linear; 0.05 ms a row."""
    found = [*_emails(text), *_ibans(text), *_cards(text), *_phones(text), *_addresses(text)]
    return without_overlaps(found)


# A digit run that counts up, or of few digits, was typed, not issued.
TYPED = re.compile(r"012345|123456|234567|345678|456789|567890|987654|(\d)\1{5}")


# E-mail addresses.

DOMAINS = re.findall(  # besides those of two letters; a matrix product `a@b.mean` has none of them
    r"\w+",
    "com org net edu gov mil int info biz name pro dev app tech cloud email online site shop store blog club live xyz"
    " news media agency academy software systems solutions digital studio design group company network world today",
)
EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+/:@-])(?P<local>[A-Za-z0-9][A-Za-z0-9._%+-]{0,63})"
    rf"@(?P<domain>(?:[A-Za-z0-9-]{{1,63}}\.){{1,5}}(?:[A-Za-z]{{2}}|(?i:{'|'.join(DOMAINS)})))(?![\w(\[@-]|\.\w)"
)
NOBODY = re.compile(
    r"(no-?reply|info|support|admin|sales|contact|help|webmaster|postmaster|abuse|security|team|hello|office|mail|email"
    r"|git|root|user(name)?|name|someone|somebody|me|you|your?[._-]?(name|email)|test(er|ing)?|foo|bar|baz|spam|alice|bob"
    r"|jo(hn|e)|jane|(jo(hn|e)|jane)[._]?(doe|smith)|first[._]?last|x+|[a-z])\d*",
    re.IGNORECASE,
)
NOWHERE = re.compile(
    r"(?:.*\.)?(?:(?:example|test|invalid|localhost|local)|(?:example|test|(?:your|my)?(?:domain|company)|email|mail|site|website|server|host|foo|bar|baz|acme|abc|xyz|somewhere|[a-z])\.[a-z.]{2,6})",
    re.IGNORECASE,
)


def _emails(text: str) -> Iterator[Found]:
    if "@" in text:
        for m in EMAIL.finditer(text):
            if not NOBODY.fullmatch(m["local"]) and not NOWHERE.fullmatch(m["domain"]):
                yield Found("e-mail address", *m.span())


# Phone numbers.

NORTH_AMERICAN = re.compile(
    r"(?<![\w.+/=-])(?:\+?1[-. ])?(?:\((?P<a>[2-9]\d\d)\) ?|(?P<b>[2-9]\d\d)(?P<sep>[-.]))"
    r"(?P<exchange>[2-9]\d\d)[-. ](?P<line>\d{4})(?![\w/=-]|\.\d)"
)
INTERNATIONAL = re.compile(
    r"(?<![\w.+)\]-])\+(?P<digits>[1-9]\d{0,14}(?:[ .-]?\(\d{1,5}\)\d{0,12}|[ .-]\d{1,12}){0,6})(?![\w-]|\.\d)"
)
COUNTRY_CODE = re.compile(
    "1|7|20|21[12368]|2[2-5][0-9]|26[0-9]|27|29[01789]|3[0-469]|35[0-9]|37[0-8]|38[0-35-79]|4[0135-9]|42[013]|5[1-8]"
    "|50[0-9]|59[0-9]|6[0-6]|67[02-9]|68[0-35-9]|69[0-2]|8[1246]|85[02356]|88[06]|9[0-58]|96[0-8]|97[0-7]|99[2-68]"
)
FICTION = re.compile(r"447700900|44207946|441632960|61[2378]5550|614915701")  # Ofcom's and ACMA's, for drama


def _phones(text: str) -> Iterator[Found]:
    for m in NORTH_AMERICAN.finditer(text):
        if _north_american((m["a"] or m["b"]) + m["exchange"] + m["line"]):
            yield Found("phone number", *m.span())
    if "+" in text:
        for m in INTERNATIONAL.finditer(text):
            digits = re.sub(r"\D", "", m["digits"].replace("(0)", ""))
            if digits[0] == "1":
                good = len(digits) == 11 and _north_american(digits[1:])
            else:
                # Fewer digits in one piece are as well a number that is added.
                enough = 11 if m["digits"].isdecimal() else 9
                good = enough <= len(digits) <= 15 and COUNTRY_CODE.match(digits) is not None
                good = good and m["digits"].count(".") != 1  # a decimal number
            if good and not TYPED.search(digits) and not FICTION.match(digits):
                yield Found("phone number", *m.span())


def _north_american(digits: str) -> bool:
    """Ten digits of the North American plan; the exchange 555 is for films."""
    area, exchange = digits[:3], digits[3:6]
    plan = area[0] not in "01" and exchange[0] not in "01" and "11" not in (area[1:], exchange[1:])
    return plan and "555" not in (area, exchange) and not TYPED.search(digits)


# Card numbers.

CARD = re.compile(
    r"(?<![\w.+-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{4,5}|(?P<bare>\d{14,19}))(?![\w-]|\.\d)"
)
CARDS = re.compile(r"card|visa|amex|credit|debit", re.IGNORECASE)
ISSUED = re.compile(
    r"4\d{12}(\d{3}){0,2}|5[1-5]\d{14}|2(22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|3[47]\d{13}"
    r"|6(011|4[4-9]\d|5\d\d)\d{12}|35(2[89]|[3-8]\d)\d{12}|3(0[0-5]|[68]\d)\d{11}|62\d{14,17}"
)
MANUALS = (  # the test numbers of Stripe, PayPal and Adyen
    "4242424242424242 4000056655665556 4012888888881881 4111111145551142 5200828282828210 5105105105105100"
    " 2223003122003222 2223000048400011 378282246310005 371449635398431 378734493671000 6011000990139424"
    " 30569309025904 38520000023237 3566002020360505 4917610000000000 5425233430109903 2222420000001113"
)


def _cards(text: str) -> Iterator[Found]:
    # A number in one piece is a card's where cards are spoken of: one in ten passes the sum by chance.
    spoken_of = CARDS.search(text) is not None
    for m in CARD.finditer(text):
        digits = re.sub(r"\D", "", m[0])
        made_up = digits in MANUALS.split() or TYPED.search(digits) or len(set(digits)) < 5
        if (m["bare"] is None or spoken_of) and ISSUED.fullmatch(digits) and luhn(digits) and not made_up:
            yield Found("card number", *m.span())


def luhn(digits: str) -> bool:
    """Luhn's sum: every second digit from the right doubled, the digits of all added, a multiple of ten."""
    doubled = [sum(divmod(2 * int(d), 10)) for d in digits[-2::-2]]
    return (sum(doubled) + sum(int(d) for d in digits[::-2])) % 10 == 0


# IBANs.

IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d\d(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
LENGTHS = {  # the SWIFT registry's
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d\d)",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18"
        " FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20"
        " LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24"
        " SI19 SK24 SM27 ST23 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20",
    )
}
SPECIMENS = (  # of the registry, and of every article about it
    "GB29NWBK60161331926819 GB82WEST12345698765432 GB33BUKB20201555555555 DE89370400440532013000 DE75512108001245126199"
    " FR1420041010050500013M02606 FR7630006000011234567890189 ES9121000418450200051332 IT60X0542811101000000123456"
    " NL91ABNA0417164300 CH9300762011623852957 BE68539007547034 AT611904300234573201 PL61109010140000071219812874"
)


def _ibans(text: str) -> Iterator[Found]:
    for m in IBAN.finditer(text):
        iban = m[0].replace(" ", "")
        if len(iban) == LENGTHS.get(iban[:2]) and iban not in SPECIMENS.split() and iban_remainder(iban) == 1:
            yield Found("IBAN", *m.span())


def iban_remainder(iban: str) -> int:
    """By 97, of the number that an IBAN is with its first four characters last and its letters as 10 to 35."""
    return int("".join(str(int(c, 36)) for c in iban[4:] + iban[:4])) % 97


# IP addresses.

IPV4 = re.compile(r"(?<![\w.+-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\w|/\d)")
IPV6 = re.compile(r"(?<![\w:.])[23][0-9a-fA-F]{3}:[0-9a-fA-F:]{3,34}[0-9a-fA-F](?![\w:]|\.\d|/\d)")
RESOLVERS = (
    "8.8.8.8 8.8.4.4 9.9.9.9 149.112.112.112 208.67.222.222 208.67.220.220 2001:4860:4860::8888 2001:4860:4860::8844"
    " 2606:4700:4700::1111 2606:4700:4700::1001 2620:fe::fe"
)


def _addresses(text: str) -> Iterator[Found]:
    for m in (*IPV4.finditer(text), *IPV6.finditer(text)):
        try:
            address = ip_address(m[0])
        except ValueError:
            continue
        if address.is_global and not address.is_multicast and not _nobodys(address):
            yield Found("IP address", *m.span())


def _nobodys(address: IPv4Address | IPv6Address) -> bool:
    """A public resolver, a network, a number typed or a version: 1.2.3.4, 8.2.4.44 (one address in 140 is lost)."""
    if str(address) in RESOLVERS.split() or address.packed[-1] in (0, 255):
        return True
    version = sum(byte > 31 for byte in set(address.packed)) < 2 or TYPED.search(str(address).replace(".", ""))
    return address.version == 4 and bool(version)
