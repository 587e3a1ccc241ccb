"""Build the notebooks, the exported modules and the maps from the lessons.

    python -m tools.build            lessons/NN_name/lesson.md → notebooks/NN_name.ipynb, course_utils/rules/name.py
    python -m tools.build --check    build in memory, compare bytes with what is on disk, write nothing
    python -m tools.build --from notebooks/NN_name.ipynb
                                     first carry what was edited there, in JupyterLab, back into the lesson

Cells tagged `export-study` become course_utils/studies/name.py. The maps in README.md and lesson 00 are filled first.
If any lesson is refused, all the reasons are printed and nothing is written.
"""

import argparse
import hashlib
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tools import edits, elsewhere, lessons, maps, markdown, refuse
from tools.lessons import ROOT, Lesson
from tools.markdown import Page

# ---------------------------------------------------------------- what is filled in


def repository(root: Path) -> str:
    """The public address, which stands in pyproject.toml and nowhere else."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = project.get("urls", {}).get("Repository", "").rstrip("/").removesuffix(".git")
    if not re.fullmatch(r"https://github\.com/[^/]+/[^/]+", address):
        raise SystemExit("pyproject.toml: [project.urls] Repository must read https://github.com/OWNER/REPO")
    return address


def badges(page: Page, address: str) -> str:
    """Binder, Colab and the source, as one line of Markdown."""
    slug, stem = address.removeprefix("https://github.com/"), page.lesson.stem
    binder = f"https://mybinder.org/v2/gh/{slug}/HEAD?urlpath=lab/tree/notebooks/{stem}.ipynb"
    colab = f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{stem}.ipynb"
    return (
        f"[![Open this lesson in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n"
        f"[![Open this lesson in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab})\n"
        f"[Source of this lesson]({address}/blob/main/{page.where})"
    )


def fillings(page: Page, number: int, address: str) -> dict[str, str]:
    """What the placeholders of cell `number` stand for."""
    values = {"repository": address}
    if not list(refuse.check_front_matter(page)):
        values["minutes"] = "{read:g} min to read · {run:g} min to run".format(**page.minutes)
    first = next((cell.number for cell in page.cells if cell.type == "markdown"), None)
    return values | ({"badges": badges(page, address)} if number == first else {})


# Colab opens a notebook without the repository around it. This cell, right after the title, brings it.
COLAB = """\
# Only on Colab: fetch the course around this notebook. Anywhere else this does nothing.
import sys

if "google.colab" in sys.modules:
    import os
    import subprocess

    address, course = "ADDRESS", "/content/REPOSITORY"
    clone = ["git", "clone", "--quiet", "--depth=1", address, course]
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "-e", course]
    for command in [] if os.path.exists(course) else [clone, install]:
        subprocess.run(command, check=True)
    sys.path.insert(0, course)  # the running kernel does not look for new packages
    os.chdir(f"{course}/notebooks")"""


def colab_cell(address: str) -> str:
    """The install cell's code for a repository; the folder is called as `git clone` would call it."""
    return COLAB.replace("ADDRESS", address).replace("REPOSITORY", address.rpartition("/")[2])


# ---------------------------------------------------------------- the products


def filled_page(lesson: Lesson, text: str, address: str) -> Page:
    """The lesson as read, its placeholders filled."""
    page = markdown.read(lesson, text)
    for cell in page.cells:
        if cell.type == "markdown":
            cell.source = markdown.fill(cell.source, fillings(page, cell.number, address))
    return page


def notebook_text(page: Page, address: str) -> str:
    """The .ipynb: no outputs, and ids made from the source, so that a diff shows only what was edited.

    One cell is not the lesson's own, `colab_cell`, whose id says so.
    """
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = new_notebook(metadata={"kernelspec": kernel, "language_info": {"name": "python"}})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    times: Counter[str] = Counter()
    for cell in page.cells:
        source = cell.source
        if cell.type == "markdown":
            source = markdown.to_notebook(markdown.without_slips(source), page.lesson)
        digest = hashlib.sha1(f"{cell.type}\0{source}".encode(), usedforsecurity=False).hexdigest()[:8]
        times[digest] += 1
        identity = digest if times[digest] == 1 else f"{digest}-{times[digest]}"
        metadata: dict[str, object] = {"tags": cell.tags} if cell.tags else {}
        if "hide-input" in cell.tags:
            metadata["jupyter"] = {"source_hidden": True}  # what JupyterLab itself goes by
        new = new_code_cell if cell.type == "code" else new_markdown_cell
        notebook.cells.append(new(source, id=identity, metadata=metadata))
    hidden = {"tags": ["setup", "hide-input"], "jupyter": {"source_hidden": True}}
    notebook.cells.insert(1, new_code_cell(colab_cell(address), id="on-colab", metadata=hidden))
    nbformat.validate(notebook)
    return nbformat.writes(notebook, indent=1).rstrip("\n") + "\n"


def module_text(page: Page, tag: str) -> str:
    """The module made of the cells with this tag."""
    header = f"# Exported from {page.where}. Edit the lesson, not this file.\n\n"
    return header + "\n\n\n".join(cell.source.strip("\n") for cell in page.exports(tag)) + "\n"


def build(root: Path) -> tuple[dict[str, str], list[str]]:
    """All products as {path: text}, and all refusals."""
    address = repository(root)
    products, refusals = {}, misplaced(root)
    try:
        products = maps.filled(root)
    except Exception as error:  # most likely a front matter that is refused below
        refusals.append(f"README.md, {maps.START}: the maps cannot be filled: {error!r} — mend that first")
    for lesson in lessons.all_lessons(root):
        where = lesson.source.relative_to(root).as_posix()
        try:
            text = products.get(where) or lesson.source.read_text(encoding="utf-8")
            if faults := list(elsewhere.faults_of_source(text)):
                refusals += [f"{where}: cell 0 (source): {reason} — {mend}" for reason, mend in faults]
                continue
            page = filled_page(lesson, text, address)
        except Exception as error:  # YAML, JSON or schema: whoever gave up, the author needs its words
            reason = " ".join(str(error).split())[:200]
            refusals.append(f"{where}: cell 0 (source): unreadable: {reason} — mend the YAML or JSON there")
            continue
        refusals += (reasons := refuse.problems(page, root))
        if reasons:
            continue
        products[f"notebooks/{lesson.stem}.ipynb"] = notebook_text(page, address)
        for tag, folder in refuse.EXPORTS.items():
            if page.exports(tag):
                products[f"course_utils/{folder}/{lesson.name}.py"] = module_text(page, tag)
    return products, refusals


def misplaced(root: Path) -> list[str]:
    """Folders that the outline does not know, and names that two lessons share."""
    outline = lessons.outline(root)
    stems, names = {lesson.stem for lesson in outline}, Counter(lesson.name for lesson in outline)
    folders = sorted(path.parent.name for path in root.glob("lessons/[!_]*/lesson.md"))
    strangers = [
        f"lessons/{name}: not in the outline — give it a line in lessons/outline.yaml"
        for name in folders
        if name not in stems
    ]
    wrong = [stem for stem in sorted(stems) if not re.fullmatch(r"\d\d_[a-z][a-z0-9_]*", stem)]
    strangers += [f"lessons/outline.yaml: {stem}: not NN_name — rename it" for stem in wrong]
    twins = [name for name, times in names.items() if times > 1]
    return strangers + [f"lessons/outline.yaml: two lessons are called {name} — rename one of them" for name in twins]


# ---------------------------------------------------------------- writing


def out_of_date(root: Path, products: dict[str, str]) -> list[str]:
    """Products that are missing or differ by a byte from what the lessons make."""
    paths = {name: root / name for name in products}
    return [n for n, path in paths.items() if not path.exists() or path.read_bytes() != products[n].encode()]


def stale(root: Path, products: dict[str, str]) -> list[str]:
    """Files whose lesson is gone. The packages' __init__.py are written by hand."""
    patterns = ["notebooks/*.ipynb", *(f"course_utils/{folder}/*.py" for folder in refuse.EXPORTS.values())]
    present = [path for pattern in patterns for path in root.glob(pattern) if path.name != "__init__.py"]
    return sorted({path.relative_to(root).as_posix() for path in present} - set(products))


def carry_back(notebook: Path, root: Path) -> None:
    """Write what was edited in a notebook into its lesson."""
    lesson = lessons.find(notebook.stem[:2], root)
    text, address = lesson.source.read_text(encoding="utf-8"), repository(root)
    page = markdown.read(lesson, text)
    built = nbformat.reads(notebook_text(filled_page(lesson, text, address), address), as_version=4)
    values = {cell.number: fillings(page, cell.number, address) for cell in page.cells}
    new, count = edits.carried(page, built.cells, nbformat.read(notebook, as_version=4).cells, values)
    lessons.write(lesson.source, new)
    print(f"{page.where}: {count} cells changed as in {notebook.name}")


def main(argv: list[str] | None = None) -> int:
    """Build or check one tree; 0 when all is well."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m tools.build", description=__doc__, formatter_class=raw)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file is out of date")
    parser.add_argument("--from", type=Path, dest="notebook", help="a notebook edited in JupyterLab")
    parser.add_argument("--root", type=Path, default=ROOT, help="the tree to build")
    args = parser.parse_args(argv)
    try:
        if args.notebook:
            carry_back(args.notebook, args.root)
    except ValueError as error:
        print(error)
        return 1
    products, refusals = build(args.root)
    if refusals:
        print("\n".join(refusals))
        return 1
    changed, left_over = out_of_date(args.root, products), stale(args.root, products)
    for name in left_over:
        print(f"{name}: no lesson makes this file — delete it")
    if args.check:
        for name in changed:
            print(f"{name}: not what its lesson makes — run `make build`")
        print(f"{len(products)} files checked, {len(changed)} out of date, {len(left_over)} left over")
        return int(bool(changed or left_over))
    for name in changed:
        lessons.write(args.root / name, products[name])
    print(f"{len(products)} files built, {len(changed)} changed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
