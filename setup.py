"""Build wheels that include conf/, the three scripts and the released models."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
SCRIPTS = ("train.py", "predict.py", "tune_thresholds.py")


class BuildWithProject(build_py):
    """The build step that copies these files to `fashion_hydra/_project`, where `fashion_hydra.config.places` looks."""

    def run(self) -> None:
        """Build the package, then copy the project's files into the wheel."""
        super().run()
        if self.editable_mode:
            return
        project = Path(self.build_lib) / "fashion_hydra" / "_project"
        shutil.rmtree(project, ignore_errors=True)
        for folder in ("conf", "models"):  # the link conf/experiment -> experiments/ becomes a copy
            shutil.copytree(ROOT / folder, project / folder, ignore=shutil.ignore_patterns("*.md", "*.png", "*.jpg"))
        for script in SCRIPTS:
            shutil.copy(ROOT / script, project / script)


setup(cmdclass={"build_py": BuildWithProject})
