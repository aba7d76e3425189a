"""One finished run that the pipeline tests share."""

import subprocess

import pytest
from dvc_project import Project, make_project
from filelock import FileLock


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that don't want it first: one worker has them to do while another makes the run that all others want."""
    items.sort(key=lambda item: item.path.name not in ("test_kill.py", "test_onnx_contract.py"))


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
