"""The ways to run the course agree: make's targets, its help, the public CI, the hooks, README."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import changed

ROOT = Path(__file__).resolve().parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([.a-z-]+):(?!=)", MAKEFILE, re.M)
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [path for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")) if path.stem != "config"]
# What `make check` and CI both hold.
PARTS = ["lint", "types", "spelling", "build-check", "clock", "units", "notebooks-test"]


def made(text):
    """The targets in the `make …` lines of a text; what holds a = is a variable."""
    calls = re.findall(r"^make (.+)", text, re.M)
    return {word for call in calls for word in shlex.split(call) if "=" not in word}


def make(*arguments):
    if not shutil.which("make"):
        pytest.skip("no make here")
    command = ["make", "--no-print-directory", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"MAKEFLAGS": ""})
    assert run.returncode == 0, run.stderr
    return run.stdout


def recipe(target):
    """What `make` would do for one lesson, without doing it."""
    return make("--dry-run", "--always-make", target, "N=06")


def fenced(text):
    """What stands in the blocks of a Markdown text, comments left out."""
    return re.sub(r" *#.*", "", "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)))


def steps(path):
    """job → its steps."""
    return {name: job["steps"] for name, job in yaml.safe_load(path.read_text())["jobs"].items()}


def test_help_tells_of_every_target():
    shown = re.findall(r"^  make (\S+) +\S", make("help"), re.M)
    assert shown and sorted(shown) == sorted(TARGETS)


def test_every_target_but_files_is_phony():
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)", MAKEFILE, re.M)
    assert sorted(phony.replace("\\", "").split()) == sorted(TARGETS)


@pytest.mark.parametrize("target", [*PARTS, "browser"])
def test_the_whole_test_holds_every_part(target):
    assert f'echo "[{target}] ' in recipe("test")


@pytest.mark.parametrize("fails", ["browser", "types", "units", "notebooks-test", "none"])
def test_two_parts_beside_each_other_fail_when_one_of_them_does(tmp_path, fails):
    (beside,) = re.findall(r"^(beside:.*\n(?:\t.*\n)+)", MAKEFILE, re.M)
    names = ("browser", "types", "units", "notebooks-test")
    parts = "".join(f"{name}: ; @echo [{name}]; test {name} != {fails}\n" for name in names)
    (tmp_path / "Makefile").write_text(f"STAMP :=\n{beside}{parts}")
    run = subprocess.run(["make", "beside"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (run.returncode == 0) == (fails == "none"), run.stderr
    assert "[browser]" in run.stdout and ("[units]" in run.stdout) == (fails != "types")


@pytest.mark.parametrize("name", re.findall(r"\$\(PY\) -m (tools\.\w+)", MAKEFILE))
def test_a_target_calls_a_tool_that_exists(name):
    assert (ROOT / f"{name.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize("target", ["lesson", "results", "figures", "cost", "notebooks-test", "browser"])
def test_one_lesson_can_be_named(target):
    assert "06" in recipe(target)


@pytest.mark.parametrize(("target", "files"), [("units", 2), ("notebooks-test", 2), ("browser", 2)])
def test_tests_run_one_thread_each_some_at_once(target, files):
    assert "OMP_NUM_THREADS=1" in recipe(target) and f"-n {files} " in recipe(target)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_only_reads_and_gives_way_to_a_newer_run(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["cancel-in-progress"] is True
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_jobs_call_targets_that_exist_and_pinned_actions(path):
    for name, job in steps(path).items():
        targets = {target for step in job for target in made(step.get("run", ""))}
        assert targets and targets <= set(TARGETS), name
        for action in (step["uses"] for step in job if "uses" in step):
            local = action.startswith("./") and (ROOT / action / "action.yml").is_file()
            assert local or re.fullmatch(r"[\w-]+/[\w-]+@v\d+", action), action


def test_the_public_tests_run_every_part():
    runs = [step.get("run", "") for path in WORKFLOWS for job in steps(path).values() for step in job]
    assert {*PARTS, "browser"} <= made("\n".join(runs))


def test_the_first_and_the_last_python_are_tested_and_macos():
    text = "\n".join(path.read_text() for path in WORKFLOWS)
    assert all(word in text for word in ("3.11", "3.13", "ubuntu-latest", "macos-latest"))


@pytest.mark.parametrize("name", [".ci/run", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_documents_name_targets_that_exist(name):
    text = (ROOT / name).read_text()
    quoted = "\n".join(re.findall(r"`(make [^`]+)`", text))
    words = made(re.sub(r" *#.*", "", text) if name == ".ci/run" else quoted) | made(fenced(text))
    assert words and words <= set(TARGETS)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_asks_something(path):
    form = yaml.safe_load(path.read_text())
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids)) and any(part.get("validations", {}).get("required") for part in form["body"])


def test_a_bug_report_asks_for_the_machine():
    assert "cu.environment()" in (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()


def test_the_container_for_development_makes_the_environment():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].endswith("python:3.12") and made(container["postCreateCommand"]) <= set(TARGETS)


def test_hooks_run_the_tools_of_make_check():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    modules = {hook["entry"].split(" -m ")[1].split()[0] for hook in hooks}
    assert modules == {"ruff", "codespell_lib", "tools.build"}
    assert all(f"$(PY) -m {module}" in MAKEFILE for module in modules)


@pytest.fixture
def repository(tmp_path):
    """A small course with one commit on main."""

    def git(*arguments):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    if not shutil.which("git"):
        pytest.skip("no git here")
    (tmp_path / "notebooks").mkdir()
    for name in ("01_one", "02_two", "03_three", "04_four"):
        (tmp_path / "lessons" / name).mkdir(parents=True)
        (tmp_path / "lessons" / name / "lesson.md").write_text(name)
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text("{}")
    git("init", "--quiet", "--initial-branch=main")
    git("config", "user.name", "A Reader")
    git("config", "user.email", "reader@example.org")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    return tmp_path, git


def test_changed_lessons_are_those_of_the_branch_and_of_the_working_tree(repository):
    root, git = repository
    assert changed.changed_lessons(root) == []
    git("switch", "--quiet", "-c", "mine")
    (root / "lessons" / "02_two" / "lesson.md").write_text("changed")
    git("commit", "--quiet", "-am", "second")
    (root / "notebooks" / "04_four.ipynb").write_text("{ }")
    (root / "lessons" / "01_one" / "figures.py").write_text("new, and not yet known to git")
    assert changed.changed_lessons(root) == ["01", "02", "04"]


def test_what_main_has_changed_meanwhile_and_what_is_gone_does_not_count(repository):
    root, git = repository
    git("branch", "mine")
    (root / "lessons" / "02_two" / "lesson.md").write_text("changed on main")
    git("commit", "--quiet", "-am", "second")
    git("switch", "--quiet", "mine")
    git("rm", "-r", "--quiet", "notebooks/03_three.ipynb", "lessons/03_three")
    assert changed.changed_lessons(root) == []


def test_outside_git_nothing_counts_as_changed(tmp_path):
    (tmp_path / "notebooks").mkdir()
    assert changed.changed_lessons(tmp_path) == []
