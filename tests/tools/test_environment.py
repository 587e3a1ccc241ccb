"""The files that say what the course needs agree, and git holds nothing that it should not."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ["3.11", "3.12", "3.13"]
CONDA_TO_PROJECT = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
LARGEST_FILE = 1_500_000

# In pieces, so that this file does not hold the names it looks for.
REGISTRY_HOSTS = [
    "py" + "pi.org",
    "python" + "hosted.org",
    "npm" + "js.org",
    "conda." + "anaconda.org",
    "download." + "pytorch.org",
]


@pytest.fixture(scope="module")
def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def ranges(pyproject) -> dict[str, SpecifierSet]:
    """Every package the project asks for, development tools included."""
    project = pyproject["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["lab"], *pyproject["dependency-groups"]["dev"]]
    return {canonicalize_name(r.name): r.specifier for r in map(Requirement, lines)}


@pytest.fixture(scope="module")
def conda() -> dict[str, str]:
    """name → version range in environment.yml, as written there."""
    packages = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    split = [re.fullmatch(r"([\w.-]+) *(.*)", package) for package in packages]
    return {match[1]: match[2] for match in split if match}


@pytest.fixture(scope="module")
def pins() -> list[Requirement]:
    return [Requirement(line) for line in (ROOT / "requirements.lock").read_text().splitlines()]


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """What git holds, or would hold after `git add .`"""
    if not shutil.which("git") or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    paths = [ROOT / name for name in names.split("\0") if name]
    return [path for path in paths if path.is_file()]


@pytest.fixture(scope="module")
def version(pyproject) -> str:
    return pyproject["project"]["version"]


def test_one_version_everywhere(version):
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest = re.search(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert newest and newest[1] == version


def test_conda_names_the_same_packages_in_the_same_ranges(conda, pyproject):
    """Those of the package, and what opens the lessons."""
    conda = {k: v for k, v in conda.items() if k not in ("python", "pip")}
    lines = pyproject["project"]["dependencies"] + pyproject["project"]["optional-dependencies"]["lab"]
    ours = {r.name: r.specifier for r in map(Requirement, lines)}
    theirs = {CONDA_TO_PROJECT.get(name, name): SpecifierSet(spec) for name, spec in conda.items()}
    assert theirs == ours


def test_the_package_alone_brings_no_notebook_server_but_its_widgets(pyproject):
    names = {r.name for r in map(Requirement, pyproject["project"]["dependencies"])}
    assert not names & {"jupyterlab", "notebook", "jupyter"} and {"ipywidgets", "ipykernel"} <= names


def test_dask_is_tested_as_it_is_installed_and_not_in_conda(pyproject, conda):
    (dask,) = pyproject["project"]["optional-dependencies"]["dask"]
    assert dask in pyproject["dependency-groups"]["dev"] and not [name for name in conda if "dask" in name]


def test_conda_takes_conda_forge_only():
    channels = yaml.safe_load((ROOT / "environment.yml").read_text())["channels"]
    assert channels == ["conda-forge", "nodefaults"]


def test_python_ranges_agree(conda, pyproject):
    allowed = SpecifierSet(pyproject["project"]["requires-python"])
    match = re.fullmatch(r"=(3\.\d+)", conda["python"])
    assert match, "Binder reads the Python version only in the form python=3.12"
    assert match[1] in allowed
    assert [v for v in ("3.10", *PYTHONS, "3.14") if v in allowed] == PYTHONS
    script = (ROOT / "tools" / "make_env.sh").read_text()
    assert "(3, 11) <= sys.version_info < (3, 14)" in script


def test_binder_reads_the_same_environment():
    assert (ROOT / "binder" / "environment.yml").read_bytes() == (ROOT / "environment.yml").read_bytes()


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_every_package_is_pinned_once_inside_its_range(python, system, pins, ranges):
    place = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    place |= {"sys_platform": system, "platform_system": system.capitalize()}
    held = [pin for pin in pins if pin.marker is None or Marker(str(pin.marker)).evaluate(place)]
    versions = {canonicalize_name(pin.name): str(pin.specifier) for pin in held}
    assert len(versions) == len(held), "a package is pinned twice"
    for name, allowed in ranges.items():
        assert re.fullmatch(r"==[^=]+", versions.get(name, "")), f"{name} is not pinned"
        assert Version(versions[name][2:]) in allowed, f"{name} {versions[name]} lies outside {allowed}"


def test_lock_names_no_address():
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_git_holds_no_uv_lock(files):
    assert not [path for path in files if path.name == "uv.lock"]


def test_no_file_names_a_package_registry(files):
    hosts = [host.encode() for host in REGISTRY_HOSTS]
    assert not {path.name for path in files if any(host in path.read_bytes() for host in hosts)}


def test_no_file_is_large(files):
    assert not {path.name for path in files if path.stat().st_size > LARGEST_FILE}


def test_notebooks_carry_no_outputs(files):
    for path in files:
        if path.suffix == ".ipynb" and path.parent == ROOT / "notebooks":
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            dirty = [c["id"] for c in cells if c.get("outputs") or c.get("execution_count")]
            assert not dirty, f"{path.name} carries outputs in cells {dirty}; run make build"
