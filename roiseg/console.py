"""How stages and the command line speak: logs to the terminal and a file, errors without a traceback, one exit status."""

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler

from roiseg.errors import RoisegError
from roiseg.params import PARAMS_FILE, read_yaml
from roiseg.progress import CONSOLE
from roiseg.work import clean_finished

LOGS = Path("logs")

OUTPUT = Console(soft_wrap=True)
"""Where commands print what they were asked for."""


def set_up_logging(stage: str | None) -> None:
    """Log to the terminal, and to `logs/{stage}.log` where a stage is named (times and hosts belong there, not in outs)."""
    handlers: list[logging.Handler] = [RichHandler(console=CONSOLE, show_path=False, show_time=False, show_level=False)]
    if stage:
        LOGS.mkdir(exist_ok=True)
        file = logging.FileHandler(LOGS / f"{stage}.log")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        handlers.append(file)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers, force=True)


def is_helper() -> bool:
    """Whether this process was started by another one of the same stage, to share its work."""
    return os.environ.get("LOCAL_RANK", "0") != "0"


def run_stage(stage: str, main: Callable[[], None], *, check_all: bool = False) -> None:
    """Run a stage's work; a fault of params, data or device ends it with a message and status 1.

    Args:
        stage: name in dvc.yaml.
        main: the work.
        check_all: check every section of the params first, so that a slip in `train` shows before `extract` has run for days. It
            imports all of roiseg, which takes seconds: for the first stage, and for those that need torch anyway.
    """
    set_up_logging(stage)
    if is_helper():
        logging.getLogger().setLevel(logging.ERROR)
    logger = logging.getLogger(stage)
    try:
        if check_all:
            # By name and not by import: it knows every section, and no stage's result depends on it.
            importlib.import_module("roiseg.schema").check_params(read_yaml(PARAMS_FILE))
        if not is_helper():
            for folder in clean_finished():
                logger.info("%s: DVC holds its result, deleted", folder)
        main()
    except RoisegError as error:
        logger.error("%s: %s", type(error).__name__, error)
        sys.exit(1)


@contextmanager
def speaking() -> Iterator[None]:
    """What a command does inside is logged to the terminal; a fault on purpose ends it with a message and status 1."""
    set_up_logging(None)
    try:
        yield
    except RoisegError as error:
        tell(error)
        sys.exit(1)


def tell(error: RoisegError) -> None:
    """Print a fault where errors go."""
    Console(stderr=True, soft_wrap=True).print(f"{type(error).__name__}: {error}", markup=False, highlight=False)
