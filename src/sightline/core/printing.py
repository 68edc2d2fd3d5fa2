"""Untrusted text made safe to print; imports nothing, so that the command line may use it."""

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
