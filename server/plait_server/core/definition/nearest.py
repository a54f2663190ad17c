"""Names in messages: quoting them safely, and finding the one that was probably meant.

Both are bounded: a caller's text may be a megabyte long, and a graph may have 100,000 names.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Sequence
from typing import Final

QUOTED_CHARS_MAX: Final = 80
"""Long enough to recognize a name, and short enough that a message with 50 problems is readable."""
QUOTED_NAMES_MAX: Final = 12

# These bound a search to a few milliseconds: comparing two names of 128 characters takes 30 us, filtering one
# 0.1 us.
_CANDIDATES_MAX: Final = 200
_COMPARED_CHARS_MAX: Final = 128
_LENGTH_DIFFERENCE_MAX: Final = 3
_SIMILARITY_MIN: Final = 0.6


def quote(name: str) -> str:
    """Put a name in quotes; cut a long one, and escape control and direction characters."""
    cut = name if len(name) <= QUOTED_CHARS_MAX else f"{name[:QUOTED_CHARS_MAX]}…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def quote_all(names: Sequence[str]) -> str:
    """Put names in quotes, separated by commas: at most 12, then the number of the others."""
    shown = ", ".join(quote(name) for name in names[:QUOTED_NAMES_MAX])
    more = len(names) - QUOTED_NAMES_MAX
    return f"{shown} and {more:,} more" if more > 0 else shown


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of `names` that a misspelt name was probably meant to be; None if none is near.

    Case is ignored. If there are many names, only those of similar length with the same beginning or end are
    compared. Of equally near names the first wins.
    """
    if not name or len(name) > _COMPARED_CHARS_MAX:
        return None
    folded = name.casefold()
    candidates: dict[str, str] = {}
    for candidate in names:
        if (
            candidate
            and abs(len(candidate) - len(name)) <= _LENGTH_DIFFERENCE_MAX
            and (candidate[0].casefold() == folded[0] or candidate[-1].casefold() == folded[-1])
        ):
            candidates.setdefault(candidate.casefold(), candidate)
            if len(candidates) == _CANDIDATES_MAX:
                break
    found = difflib.get_close_matches(folded, candidates, n=1, cutoff=_SIMILARITY_MIN)
    return candidates[found[0]] if found else None
