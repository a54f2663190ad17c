"""Usage: exact decimals that add up without rounding (U1)."""

from __future__ import annotations

import decimal
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

_EXACT: Final = decimal.Context(prec=200)
"""Python's own 28 digits would round; 200 hold the sum of any number of amounts of 40 digits on each side."""
_AMOUNT: Final = re.compile(r"[0-9]{1,40}(\.[0-9]{0,40})?")


def is_amount(text: str) -> bool:
    """Whether a text is an exact decimal, at least 0, of at most 40 digits on each side of the point.

    Stricter than `Decimal`, which allows `1_0`, spaces and digits of every script.
    """
    return _AMOUNT.fullmatch(text) is not None


def add_amount(total: Decimal | None, amount: str) -> Decimal:
    """Add an amount to a total, exactly."""
    return _EXACT.add(total or Decimal(0), Decimal(amount))


def add_usage(totals: dict[str, Decimal], usage: Mapping[str, str]) -> None:
    """Add an attempt's usage to totals, unit by unit."""
    for unit, amount in usage.items():
        totals[unit] = add_amount(totals.get(unit), amount)


def take_usage(totals: dict[str, Decimal], usage: Mapping[str, str]) -> None:
    """Subtract an attempt's usage from totals that include it; a unit at zero is removed."""
    for unit, amount in usage.items():
        left = _EXACT.subtract(totals[unit], Decimal(amount))
        if left:
            totals[unit] = left
        else:
            del totals[unit]


def usage_text(totals: Mapping[str, Decimal]) -> dict[str, str]:
    """Write totals as plain digits, units in order."""
    return {unit: format(totals[unit], "f") for unit in sorted(totals)}


def beyond(usage: Mapping[str, str], counted: Mapping[str, str]) -> dict[str, str]:
    """Return what `usage` has in excess of what was counted, unit by unit."""
    more: dict[str, Decimal] = {}
    for unit, amount in usage.items():
        left = _EXACT.subtract(Decimal(amount), Decimal(counted.get(unit, "0")))
        if left > 0:
            more[unit] = left
    return usage_text(more)
