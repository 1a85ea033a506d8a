"""Text that somebody else wrote, as it may be shown on a terminal."""

from __future__ import annotations

import re

#: Control characters but for tab and line feed (ESC begins a terminal's commands, C1 ones do it in one character),
#: characters that reorder the text around them, halves of surrogate pairs.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""``text`` with what a terminal would obey written out, as JSON writes it.

    >>> printable("\x1b[2Jgone")
    '\\u001b[2Jgone'
    """
    return UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
