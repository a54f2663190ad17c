"""K4, FAILURES 9: whatever is damaged in a store, no answer is wrong, and nothing is lost without a word.

This is the short form of `python -m tests.rigs.damage`, which flips thousands of places.
"""

from __future__ import annotations

import pytest

from tests.rigs.damage import Rig


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("rig"), executions=8)


def test_a_whole_store_is_right(rig: Rig) -> None:
    for name in ("closed", "killed"):
        assert rig.judge(rig.copied(name), name) == "right"


def test_flipped_columns_are_told(rig: Rig) -> None:
    counts = rig.flip_columns(1, 0)
    assert counts.total() > 40
    assert counts["CORRUPT"] > 10
    assert counts["refused"] > 10


def test_flipped_bits_of_the_database_are_told(rig: Rig) -> None:
    counts = rig.flip_database(60, 0)
    assert counts["CORRUPT"] > 4


def test_a_salvage_saves_what_is_whole(rig: Rig) -> None:
    counts = rig.salvage(12, 1)
    assert counts["saved"] > 80


def test_flipped_bits_of_a_log_are_told(rig: Rig) -> None:
    counts = rig.flip_log(20, 0)
    assert counts["refused"] > 15
