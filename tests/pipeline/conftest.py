"""One finished run that the pipeline tests share."""

import subprocess

import pytest
from dvc_project import Project, make_project
from filelock import FileLock


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put a file with a project of its own first: another worker has it to do while one makes the run that all others want."""
    items.sort(key=lambda item: item.path.name != "test_kill.py")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project on which `dvc repro` has run on the built-in sample; tests leave its committed state as it is.

    The run takes most of a minute, so the workers of pytest-xdist make one and copy it.
    """
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "finished"
    shared.mkdir(exist_ok=True)
    with FileLock(shared / "lock"):
        if not (shared / "whole").exists():
            project = make_project(shared / "project")
            project.dvc("repro")
            project.commit()
            (shared / "whole").touch()
    own = tmp_path_factory.mktemp("finished") / "project"
    # Unlike shutil's copy this one keeps outs as links into the cache.
    subprocess.run(["cp", "-a", str(shared / "project"), str(own)], check=True)
    return Project(own)
