"""Which term of a loss reads which output of a head beside its mask logits, and whether a head and a loss fit."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from roiseg.errors import ParamsError
from roiseg.losses.auxiliary import CONTOUR, DISTANCE, FOREGROUND
from roiseg.losses.contrastive import EMBEDDING
from roiseg.losses.full_map import FULL_MAP
from roiseg.losses.head_distill import BRANCHES
from roiseg.losses.hierarchical import BG_FG, TARGET_NON_TARGET
from roiseg.losses.params import LossParams


class Reader(NamedTuple):
    """Who reads an output.

    Attributes:
        section: of the term.
        branch: key of the model that makes the output for this term alone; None where the mask is made of it too.
    """

    section: str
    branch: str | None


READERS: Mapping[str, Reader] = {
    FOREGROUND: Reader("loss.auxiliary.foreground", "model.auxiliary.foreground"),
    CONTOUR: Reader("loss.auxiliary.contour", "model.auxiliary.contour"),
    DISTANCE: Reader("loss.auxiliary.distance", "model.auxiliary.distance"),
    EMBEDDING: Reader("loss.contrastive", "model.auxiliary.embedding"),
    FULL_MAP: Reader("loss.full_map", "model.full_map"),
    BG_FG: Reader("loss.hierarchical", None),
    TARGET_NON_TARGET: Reader("loss.hierarchical", None),
}
"""Output -> who reads it; `stage_1` and `stage_2` are read wherever they are given."""


def needed_aux(params: LossParams) -> frozenset[str]:
    """Names of the outputs beside its logits that a head must give for this loss."""
    sections = {
        "loss.auxiliary.foreground": params.auxiliary.foreground,
        "loss.auxiliary.contour": params.auxiliary.contour,
        "loss.auxiliary.distance": params.auxiliary.distance,
        "loss.contrastive": params.contrastive,
        "loss.full_map": params.full_map,
        "loss.hierarchical": params.hierarchical,
    }
    return frozenset(name for name, reader in READERS.items() if sections[reader.section] is not None)


def taught_outputs(params: LossParams) -> frozenset[str]:
    """Names of the outputs beside its logits that a head learns from its teacher, so that both must give them."""
    return BRANCHES if params.distill is not None and params.distill.branches else frozenset()


def needs_frames(params: LossParams) -> bool:
    """Whether the data set must give targets of the whole network input: exactly where a head must give logits of it."""
    return FULL_MAP in needed_aux(params)


def check_outputs(params: LossParams, head: str, given: Collection[str]) -> None:
    """See that the terms of a loss find what they read, and that no branch goes untaught.

    Weights that nothing teaches stay as they were drawn, spoil masks that they have a say in, and stop a run of several processes.

    Args:
        params: section `loss`.
        head: name of the family.
        given: the outputs that it gives beside its mask logits.

    Raises:
        ParamsError: a line for each kind of fault.
    """
    needed = needed_aux(params)
    missing = sorted(needed - set(given))
    idle = sorted(name for name, reader in READERS.items() if reader.branch and name in given and name not in needed)
    faults = []
    if missing:
        sections = ", ".join(sorted({READERS[name].section for name in missing}))
        faults.append(
            f"{sections}: reads the outputs {', '.join(missing)} of a head, but model.head {head!r} gives "
            f"{', '.join(sorted(given)) or 'none'}; set {sections} to null, or take a model whose params switch them on"
        )
    if idle:
        branches, sections = (", ".join(str(READERS[name][place]) for name in idle) for place in (1, 0))
        faults.append(
            f"{branches}: gives the outputs {', '.join(idle)}, but no term of the loss reads them, so that nothing would teach "
            f"them; switch {branches} off, or give {sections} a value"
        )
    if taught := sorted(taught_outputs(params) - set(given)):
        faults.append(
            f"loss.distill.branches: reads the outputs {', '.join(taught)} of a head, but model.head {head!r} gives "
            f"{', '.join(sorted(given)) or 'none'}; set it to 0.0, or take a head that decides in two steps"
        )
    if faults:
        raise ParamsError("\n".join(faults))
