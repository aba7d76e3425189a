"""One finished run that the pipeline tests share."""

import pytest
from dvc_project import Project, make_project


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project on which `dvc repro` has run on the built-in sample; tests leave its committed state as it is."""
    project = make_project(tmp_path_factory.mktemp("finished") / "project")
    project.dvc("repro")
    project.commit()
    return project
