"""Usage: exact decimals that add up without rounding (U1)."""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import Final

_EXACT: Final = decimal.Context(prec=200)
"""Python's own 28 digits would round; 200 hold the sum of any number of amounts of 40 digits on each side."""
_AMOUNT: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{0,40})?")


def is_amount(text: str) -> bool:
    """Whether a text is an exact decimal, at least 0, of at most 40 digits on each side of the point.

    Not what `Decimal` takes: that allows `1_0`, spaces and digits of every script.
    """
    return _AMOUNT.fullmatch(text) is not None


def add_amount(total: Decimal | None, amount: str) -> Decimal:
    """Add an amount to a total, exactly."""
    return _EXACT.add(total or Decimal(0), Decimal(amount))
