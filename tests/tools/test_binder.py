"""What Binder makes of this repository: repo2docker's own dry run, and the scripts that the image would run.

The image itself is not built here, which takes Docker and conda's channels.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from course_utils.files import find

ROOT = Path(__file__).resolve().parents[2]


def dry_run(folder):
    """repo2docker's account of the image it would build from `folder`, Dockerfile included."""
    command = [str(Path(sys.executable).parent / "jupyter-repo2docker"), "--no-build", "--debug", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout + run.stderr


@pytest.fixture(scope="module")
def plan():
    return dry_run(ROOT)


def test_binder_takes_the_conda_environment_and_python(plan):
    # The exit status is 0 also when the environment is missing: then these lines differ.
    assert "Building conda environment for python=3.12\n" in plan
    assert re.search(r"^COPY .* src/binder/environment.yml \$\{REPO_DIR\}/binder/environment.yml$", plan, re.M)
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in plan


def test_binder_runs_post_build_and_start(plan):
    assert "RUN ./binder/postBuild\n" in plan
    assert 'ENV R2D_ENTRYPOINT="${REPO_DIR}/binder/start"\n' in plan
    for name in ("postBuild", "start"):
        assert os.access(ROOT / "binder" / name, os.X_OK), f"binder/{name} is not executable"


def test_the_dry_run_notices_a_missing_environment_and_start(tmp_path):
    """The two tests above would fail: what they look for is not there whatever happens."""
    shutil.copytree(ROOT / "binder", tmp_path / "binder", ignore=shutil.ignore_patterns("environment.yml", "start"))
    plan = dry_run(tmp_path)
    assert "python=3.12" not in plan and "environment.yml" not in plan and "R2D_ENTRYPOINT" not in plan


def test_post_build_installs_the_package_and_finds_mnist(tmp_path):
    """Its commands in a copy. pip is only listened to: `make .venv` has run the same installation."""
    folder = find("mnist")
    if folder is None:
        pytest.skip("no MNIST here, and no network to fetch it")
    for name in ("binder", "course_utils"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shim = tmp_path / "bin" / "python"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nif [ "$2" = pip ]; then echo "pip: $*"; else exec "{sys.executable}" "$@"; fi\n')
    shim.chmod(0o755)
    env = os.environ | {"PATH": f"{shim.parent}:{os.environ['PATH']}", "COURSE_DATA": str(folder.parent.parent)}
    run = subprocess.run(["binder/postBuild"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["pip: -m pip install --no-deps -e .", f"mnist: {folder}"]


V1 = ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")


@pytest.mark.parametrize(
    ("files", "threads"),
    [
        ({}, 2),
        ({"cpu.max": "max 100000\n"}, 2),
        ({"cpu.max": "400000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "50000 100000\n"}, 1),
        (dict(zip(V1, ("-1\n", "100000\n"), strict=True)), 2),
        (dict(zip(V1, ("100000\n", "100000\n"), strict=True)), 1),
    ],
)
def test_start_caps_the_threads_and_hands_over(tmp_path, files, threads):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    report = "import os, sys; print(sys.argv[1:], *map(os.environ.get, sys.argv[2:]))"
    names = ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    env = {name: value for name, value in os.environ.items() if name not in names} | {"CGROUP_ROOT": str(tmp_path)}
    command = [ROOT / "binder" / "start", sys.executable, "-c", report, "two words", *names]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"{['two words', *names]} {threads} {threads} {threads} passive 2000"
    assert run.stderr == ""


def test_start_waits_as_the_package_does():
    start, package = ((ROOT / name).read_text() for name in ("binder/start", "course_utils/__init__.py"))
    for name, value in re.findall(r'setdefault\("(\w+)", "(\w+)"\)', package):
        assert f"{name}={value}" in start
