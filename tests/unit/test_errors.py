"""Tests of roiseg.errors: the tree in the docstring is the tree in the code."""

import re

import pytest

from roiseg import errors
from roiseg.errors import RoisegError

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
BUILTIN = {
    "ParamsError": ValueError,
    "AnnotationError": ValueError,
    "MissingImageError": FileNotFoundError,
    "ImageReadError": ValueError,
    "PixelsError": ValueError,
    "BoxError": ValueError,
    "GraphError": ValueError,
    "ProviderError": RuntimeError,
    "StoreError": ValueError,
    "StoreMismatchError": ValueError,
    "StoreDamagedError": ValueError,
    "DiskSpaceError": OSError,
    "UnwritableError": OSError,
    "WorkBusyError": BlockingIOError,
    "CheckpointError": ValueError,
    "ResultsError": ValueError,
    "TrainingError": RuntimeError,
    "PredictionError": ValueError,
    "FilterError": ValueError,
    "NoImageError": RuntimeError,
    "PackageError": ImportError,
    "RunError": LookupError,
    "RequestError": ValueError,
    "ParityError": RuntimeError,
}


@pytest.mark.parametrize(("name", "builtin"), BUILTIN.items(), ids=BUILTIN)
def test_each_error_is_a_roiseg_error_and_a_builtin(name: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="what went wrong") as caught:
        raise CLASSES[name]("what went wrong")
    assert isinstance(caught.value, RoisegError)


def test_no_error_is_left_out_of_these_tests() -> None:
    assert set(CLASSES) == {*BUILTIN, "RoisegError"}


def test_tree_in_the_docstring_matches_the_classes() -> None:
    parents = {}
    branch: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([ │├└─]*)(\w+Error)\b", line)
        if not found:
            continue
        depth, name = len(found[1]), found[2]
        while branch and branch[-1][0] >= depth:
            branch.pop()
        parents[name] = branch[-1][1] if branch else None
        branch.append((depth, name))
    assert parents.pop("RoisegError") is None
    assert parents == {name: value.__bases__[0].__name__ for name, value in CLASSES.items() if name != "RoisegError"}
