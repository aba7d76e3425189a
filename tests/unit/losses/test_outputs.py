"""Tests of roiseg.losses.outputs: what a loss needs of a head, and pairs of both that are refused."""

from typing import Any

import pytest
from loss_factory import FULL, PLAIN, loss_params

from roiseg.errors import ParamsError
from roiseg.losses import check_outputs, needed_aux
from roiseg.losses.outputs import READERS

EVERYTHING = needed_aux(loss_params(FULL))
STAGES = frozenset({"stage_1", "stage_2"})


def without(name: str) -> dict[str, Any]:
    """Section `loss` with every term but the one that reads an output."""
    _, key, *rest = READERS[name].section.split(".")
    return FULL | {key: FULL[key] | {rest[0]: None} if rest else None}


def test_needed_aux() -> None:
    assert needed_aux(loss_params()) == frozenset()
    assert EVERYTHING == set(READERS)
    assert needed_aux(loss_params(FULL, hierarchical=None)) == EVERYTHING - {"bg_fg", "target_non_target"}
    auxiliary = PLAIN["auxiliary"] | {"contour": FULL["auxiliary"]["contour"]}
    assert needed_aux(loss_params(auxiliary=auxiliary)) == {"contour"}


def test_what_fits_passes() -> None:
    check_outputs(loss_params(), "roi_crop", frozenset())
    check_outputs(loss_params(), "coarse", STAGES)
    check_outputs(loss_params(FULL), "hierarchical", EVERYTHING | STAGES)
    check_outputs(loss_params(), "hierarchical", {"bg_fg", "target_non_target"})


@pytest.mark.parametrize("name", sorted(READERS))
def test_a_term_without_its_output(name: str) -> None:
    section = READERS[name].section.replace(".", r"\.")
    message = rf"^{section}: reads the outputs {name} of a head, but model\.head 'coarse' gives .*; set {section} to null, or take"
    with pytest.raises(ParamsError, match=message):
        check_outputs(loss_params(FULL), "coarse", EVERYTHING - {name})


def test_a_head_that_gives_nothing() -> None:
    with pytest.raises(ParamsError, match=r"reads the outputs bg_fg, target_non_target of a head, but model\.head 'x' gives none;"):
        check_outputs(loss_params(hierarchical=FULL["hierarchical"]), "x", ())


@pytest.mark.parametrize("name", sorted(name for name, reader in READERS.items() if reader.branch))
def test_a_branch_that_nothing_teaches(name: str) -> None:
    section, branch = (str(part).replace(".", r"\.") for part in READERS[name])
    message = rf"^{branch}: gives the outputs {name}, but no term of the loss reads them.*switch {branch} off, or give {section} a"
    with pytest.raises(ParamsError, match=message):
        check_outputs(loss_params(without(name)), "hierarchical", EVERYTHING)


def test_both_faults_come_at_once() -> None:
    with pytest.raises(ParamsError) as caught:
        check_outputs(loss_params(hierarchical=FULL["hierarchical"]), "coarse", {"contour", "embedding"})
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "loss.hierarchical",
        "model.auxiliary.contour, model.auxiliary.embedding",
    ]
