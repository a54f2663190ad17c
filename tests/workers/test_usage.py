"""Tests of exact amounts (U1)."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_worker.usage import add_amount, format_totals, parse_amount

AMOUNTS = st.decimals(min_value=0, max_value=10**29, places=30)


@given(st.lists(AMOUNTS, min_size=1, max_size=20))
def test_amounts_add_up_exactly_in_any_order(amounts: list[Decimal]) -> None:
    forwards: dict[str, Decimal] = {}
    backwards: dict[str, Decimal] = {}
    for amount in amounts:
        add_amount(forwards, "u", parse_amount(amount))
    for amount in reversed(amounts):
        add_amount(backwards, "u", parse_amount(str(amount)))
    assert forwards == backwards
    assert Fraction(forwards["u"]) == sum(map(Fraction, amounts))


@pytest.mark.parametrize(
    ("amount", "text"),
    [(12, "12"), ("0.0025", "0.0025"), ("1E+3", "1000"), (Decimal("1.50"), "1.50"), ("1e-7", "0.0000001")],
    ids=str,
)
def test_amounts_are_written_without_exponent(amount: Decimal | int | str, text: str) -> None:
    assert format_totals({"u": parse_amount(amount)}) == {"u": text}


@pytest.mark.parametrize("amount", [0.1, True, None, [1]], ids=repr)
def test_amount_that_is_not_exact_is_refused(amount: object) -> None:
    wrong: Any = amount
    with pytest.raises((TypeError, ValueError)):
        parse_amount(wrong)


@pytest.mark.parametrize("amount", ["x", "", "NaN", "Infinity", "-1", "1e-31", "1e30", "1e999999"], ids=repr)
def test_amount_out_of_bounds_is_refused(amount: str) -> None:
    with pytest.raises(ValueError, match="an amount of usage"):
        parse_amount(amount)


def test_units_are_named_and_few() -> None:
    totals: dict[str, Decimal] = {}
    with pytest.raises(ValueError, match="a unit of usage"):
        add_amount(totals, "no unit", Decimal(1))
    for number in range(64):
        add_amount(totals, f"u{number}", Decimal(1))
    with pytest.raises(ValueError, match="at most 64 units"):
        add_amount(totals, "u64", Decimal(1))
    add_amount(totals, "u0", Decimal(1))
    assert totals["u0"] == 2
