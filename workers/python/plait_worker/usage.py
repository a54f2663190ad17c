"""Exact amounts: what an attempt used, unit by unit (U1).

Amounts are decimals and are added without rounding. That needs bounds, or a sum of 1E+999999 and 1E-999999
would take a megabyte: an amount has at most 30 digits on either side of the point.
"""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from plait_worker.identity import check_id
from plait_worker.limits import USAGE_UNITS_MAX

DIGITS_MAX: Final = 30
"""Digits before the point, and digits after it."""

# 100 digits hold 10 ** 40 amounts of 60 digits; the trap turns what cannot happen into an error, never into
# rounding.
_EXACT: Final = decimal.Context(prec=100, traps=[decimal.Inexact, decimal.InvalidOperation])


def parse_amount(amount: Decimal | int | str) -> Decimal:
    """Read an amount exactly.

    Raises:
        TypeError: if it is a float (0.1 is not a tenth) or another type.
        ValueError: if it is no finite decimal, is negative, or has over 30 digits on a side of the point.
    """
    # Callers are not all type-checked, and Decimal would take these without a word.
    if isinstance(amount, bool | float):
        raise TypeError(
            f"an amount of usage is exact: pass an int, a Decimal or a str, not {type(amount).__name__}"
        )
    try:
        parsed = Decimal(amount)
    except (decimal.InvalidOperation, ValueError) as error:
        raise ValueError("an amount of usage is a decimal such as 12 or 0.0025") from error
    exponent = parsed.as_tuple().exponent
    if not isinstance(exponent, int) or parsed < 0:
        raise ValueError(f"an amount of usage is finite and not negative: {parsed}")
    if exponent < -DIGITS_MAX or (parsed and parsed.adjusted() >= DIGITS_MAX) or exponent > DIGITS_MAX:
        raise ValueError(f"an amount of usage has at most {DIGITS_MAX} digits on each side of the point")
    return parsed


def add_amount(totals: dict[str, Decimal], unit: str, amount: Decimal) -> None:
    """Add an amount to the total of its unit, exactly.

    Raises:
        ValueError: if it would be unit number 65, or its name does not match `[A-Za-z0-9_.-]{1,128}`.
    """
    total = totals.get(unit)
    if total is not None:
        totals[unit] = _EXACT.add(total, amount)
        return
    if len(totals) >= USAGE_UNITS_MAX:
        raise ValueError(f"an attempt reports at most {USAGE_UNITS_MAX} units of usage")
    check_id("a unit of usage", unit)
    totals[unit] = amount


def format_totals(totals: Mapping[str, Decimal]) -> dict[str, str]:
    """Write totals as the contract wants them: plain digits, no exponent."""
    return {unit: f"{amount:f}" for unit, amount in totals.items()}
