"""What git and DVC call a state of the project: branches, tags, commits, experiments."""

import difflib
import subprocess
from collections.abc import Iterable

from roiseg.errors import RunError
from roiseg.params import nearest

EXPERIMENTS = "refs/exps/"
"""Where DVC keeps experiments: refs/exps/{2 digits}/{38 digits of the commit it began at}/{name}."""

LISTED = 12
"""Known names that a message lists; of more only those that are near."""


def git(*arguments: str) -> str | None:
    """What git prints to these arguments in this folder; None where it refuses them.

    Raises:
        RunError: there is no git.
    """
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, check=False)
    except FileNotFoundError as error:
        raise RunError(f"git {arguments[0]}: there is no program git; install it, or name metrics files") from error
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else None


def commit_of(name: str) -> str | None:
    """The commit that a revision or an experiment of this name stands for; None: there is none.

    Raises:
        RunError: several experiments have the name, and none began at HEAD.
    """
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    if found is not None:
        return found.splitlines()[-1]
    own = [ref for ref in _refs(EXPERIMENTS) if _experiment(ref) == name]
    if len(own) > 1:
        head = git("rev-parse", "HEAD") or ""
        here = [ref for ref in own if "".join(ref.split("/")[2:4]) == head.strip()]
        if not here:
            raise RunError(f"experiment {name!r}: there are {len(own)} of this name, expected one; name {' or '.join(sorted(own))}")
        own = here
    return commit_of(own[0]) if own else None


def unknown(name: str, others: Iterable[str] = ()) -> RunError:
    """The error for a name that stands for nothing.

    Args:
        name: what was typed.
        others: names that mean something beside branches, tags and experiments.
    """
    refs = _refs("refs/heads/", "refs/tags/", "refs/remotes/", EXPERIMENTS)
    named = {_experiment(ref) if ref.startswith(EXPERIMENTS) else ref.split("/", 2)[2] for ref in refs}
    # DVC keeps what it works with among its experiments.
    names = {name for name in named if name is not None} | set(others)
    if len(names) > LISTED and not difflib.get_close_matches(name, names):
        hint = "none of the known names is near; `git branch -a`, `git tag` and `dvc exp list -A` list them"
    else:
        hint = nearest(name, names)
    return RunError(
        f"run {name!r}: no revision, experiment, metrics file or folder of such has this name, expected one of these or "
        f"'workspace'; {hint}"
    )


def _refs(*prefixes: str) -> list[str]:
    return (git("for-each-ref", "--format=%(refname)", *prefixes) or "").split()


def _experiment(ref: str) -> str | None:
    parts = ref.split("/")
    if not ref.startswith(EXPERIMENTS) or len(parts) != 5 or len(parts[2]) != 2:
        return None
    return parts[4]
