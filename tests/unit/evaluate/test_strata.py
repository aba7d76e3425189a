"""Tests of roiseg.evaluate.strata: the edges, and that every ROI is somewhere."""

from dataclasses import replace

import numpy as np
import pytest
from table_factory import random_table, table_of

from roiseg.evaluate.strata import GROUPS, strata
from roiseg.evaluate.table import RoiTable


@pytest.mark.parametrize(
    ("area", "expected"),
    [(0.0, "small"), (1023.9, "small"), (1024.0, "medium"), (9215.9, "medium"), (9216.0, "large"), (1e6, "large")],
)
def test_sizes_are_those_of_coco(area: float, expected: str) -> None:
    table = replace(table_of(np.ones((1, 3, 3), dtype=np.int64)), areas=np.array([area]))
    assert strata(table)["size"].tolist() == [expected]


@pytest.mark.parametrize(
    ("crowd", "expected"),
    [(0, "none"), (1, "under_10"), (99, "under_10"), (100, "10_to_30"), (300, "10_to_30"), (301, "over_30"), (1000, "over_30")],
)
def test_crowdedness_by_hand(crowd: int, expected: str) -> None:
    """Of 1,000 cells, as annotated and whatever was predicted."""
    confusions = np.array([[[500 - crowd // 2, 0, 0], [0, 500 - (crowd + 1) // 2, 0], [0, crowd // 3, crowd - crowd // 3]]])
    assert confusions.sum() == 1000
    assert strata(table_of(confusions))["crowdedness"].tolist() == [expected]


def test_truncation() -> None:
    table = replace(table_of(np.ones((2, 3, 3), dtype=np.int64)), truncated=np.array([True, False]))
    assert strata(table)["truncation"].tolist() == ["truncated", "whole"]


def test_every_roi_is_in_one_stratum_of_each_group() -> None:
    table = random_table(np.random.default_rng(0), 20, 300)
    found = strata(table)
    assert list(found) == list(GROUPS)
    for group, names in found.items():
        assert names.shape == (300,)
        assert set(names.tolist()) == set(GROUPS[group]), "of 300 ROIs, some are of each kind"


def test_strata_of_no_rois() -> None:
    assert {group: names.shape for group, names in strata(RoiTable.together([])).items()} == dict.fromkeys(GROUPS, (0,))
