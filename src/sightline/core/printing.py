"""What is printed; imports nothing, so that the command line may use it."""

from __future__ import annotations

_INERT = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_INERT |= dict.fromkeys((0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x85, 0x2028, 0x2029), " ")
_INERT |= {
    code: f"\\u{code:04x}"
    for code in (
        0x061C,
        *range(0x200B, 0x2010),
        *range(0x202A, 0x202F),
        *range(0x2060, 0x2070),
        0xFEFF,
        *range(0xFFF9, 0xFFFC),
    )
    if code != 0x200D
}
_INERT |= {code: f"\\U{code:08x}" for code in range(0xE0000, 0xE0080)}
_INERT |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}


def printable(text: str) -> str:
    r"""Returns the text on one line with nothing a terminal would act on.

    Line ends and tabs become spaces; other control characters (the escape that starts ANSI and OSC
    sequences among them), bidirectional and invisible formatting characters, tag characters and
    lone surrogates become visible escapes. The zero-width joiner of emoji stays.

    Example:
        >>> printable("red\x1b[2J\nblue")
        'red\\x1b[2J blue'
    """
    return text.translate(_INERT)


def percent(share: float, digits: int = 1) -> str:
    """A share in per cent with this many digits, or as many more as tell it from 0 and from 1.

    Example:
        >>> percent(0.05), percent(0.0001), percent(0.95, 0), percent(0.9999, 0), percent(1.0)
        ('5.0%', '0.01%', '95%', '99.99%', '100.0%')
    """
    while 0.0 < share < 1.0 and digits < 12 and float(f"{share:.{digits}%}"[:-1]) in (0.0, 100.0):
        digits += 1
    return f"{share:.{digits}%}"


def rough_duration(seconds: float) -> str:
    """A forecast of time, no finer than it can be known: ``8 s``, ``3 min``, ``2 h 5 min``.

    Example:
        >>> rough_duration(7.6), rough_duration(0.2), rough_duration(170.0), rough_duration(7500.0)
        ('8 s', '1 s', '3 min', '2 h 5 min')
    """
    if round(seconds) < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
