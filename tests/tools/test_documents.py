"""README, CONTRIBUTING, CITATION, the map and the template: what they say is so."""

import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
import yaml
from test_build import build
from test_lessons import FUNCTION, SOLUTION, tried

import course_utils as cu

ROOT = Path(__file__).parent.parent
README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
START = (ROOT / "lessons" / "00_start_here.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LESSONS = sorted((ROOT / "lessons").glob("[0-9]*.md"))
STEMS = [path.stem for path in LESSONS]


def front_matter(path):
    return yaml.safe_load(path.read_text().split("---\n")[1])["lesson"]


def rows(text, number):
    """The cells of each table row that begins with a lesson's number."""
    found = [line.strip().strip("|").split("|") for line in text.splitlines() if line.startswith(f"| {number} |")]
    return [[cell.strip() for cell in row] for row in found]


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize("path", LESSONS, ids=STEMS)
def test_every_lesson_is_on_both_maps_with_its_title_and_question(path):
    lesson, number = front_matter(path), path.stem[:2]
    in_readme, in_map = rows(README, number), rows(START, number)
    assert len(in_readme) == 1, f"README.md: give lesson {number} a row in the table of lessons"
    assert len(in_map) == 1, f"lessons/00_start_here.md: give lesson {number} a row in the map"
    (_, link, question, minutes, memory), (_, name, asked) = in_readme[0], in_map[0]
    assert link == f"[{lesson['title']}](notebooks/{path.stem}.ipynb)"
    itself = path.stem == "00_start_here"
    assert name == (lesson["title"] if itself else f"[{lesson['title']}]({path.name})")
    assert question == asked == lesson.get("question", question), "one question, in the same words"
    assert question.endswith("?")
    assert minutes == f"{lesson['minutes']['read']:g} · {lesson['minutes']['run']:g} min"
    assert re.fullmatch(r"\d[\d,]* MB", memory)


def test_the_map_names_every_lesson_of_the_outline():
    numbers = set()
    for first, last in re.findall(r"^\| (\d\d)(?:–(\d\d))? \|", START, re.M):
        numbers |= set(range(int(first), int(last or first) + 1))
    assert numbers == set(range(34))
    for line in START.splitlines():
        if re.match(r"\| \d\d", line) and "](" not in line and not line.startswith("| 00 "):
            assert "*planned*" in line, f"neither a link nor planned: {line}"


# ---------------------------------------------------------------- lesson 00: the symbols


def notation():
    """(symbol, shape, what it is, code): the rows of the table of symbols."""
    lines = [line for line in START.split("## Symbols")[1].split("```")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_the_table_of_symbols_is_whole_and_stands_in_one_place():
    assert all(len(row) == 4 and row[0] and row[2] for row in notation())
    plain = [re.sub(r"\\(?:mathbf|boldsymbol|mathrm)|[{}\\$, ]", "", row[0]) for row in notation()]
    for symbol in "N L n_l W_l b_l a_l h_l f' haty y e delta_l B_l w g hatg eta theta sigma psi xi_l K Sigma".split():
        assert any(symbol in cell for cell in plain), symbol
    for path in LESSONS:
        assert path.stem.startswith("00") or "| symbol | shape |" not in path.read_text()


def test_the_code_in_the_table_has_the_shapes_in_the_table():
    sizes, l = [7, 6, 5, 3], 2
    net = cu.MLP(sizes, activation="tanh", device="cpu")
    rule = cu.rules.FeedbackAlignment(net)
    x, y = torch.randn(4, 7), torch.arange(4) % 3
    h = net.activations(x)
    shapes = {r"N\times n_0": (4, 7), r"N\times n_l": (4, 5), r"N\times n_L": (4, 3)}
    shapes |= {r"n_l\times n_{l-1}": (5, 6), "n_l": (5,)}
    known = {"net": net, "rule": rule, "x": x, "y": y, "h": h, "l": l, "cu": cu, "len": len}
    assert (len(x), net.depth, net.sizes[l]) == (4, 3, 5)  # N, L, n_l
    checked = set()
    for symbol, shape, _, code in notation():
        for source in re.findall(r"`([^`]+)`", code):
            if shape.strip("$") in shapes and re.search(r"[\[(]|^x$", source) and "=" not in source:
                value = eval(source, known)
                assert source == "net(x)" and "a_l" in symbol or tuple(value.shape) == shapes[shape.strip("$")], source
                checked.add(source)
    assert {"x", "h[l]", "net.weights[l - 1]", "net.biases[l - 1]", "rule.feedback_weights[l - 1]"} <= checked
    assert {"net(x)", "net(x).softmax(1)", "net.output_error(h[-1], y)"} <= checked
    for name in ("bias", "projection", "variance", "snr"):
        assert name in cu.metrics.gradient_statistics(rule, x, y, draws=20)
        assert any(row[3] == f"`{name}`" for row in notation())


# ---------------------------------------------------------------- README


def test_the_messages_under_troubleshooting_are_those_of_the_code():
    section = README.split("## Troubleshooting")[1].split("\n## ")[0]
    course = "".join(path.read_text() for path in (ROOT / "course_utils").rglob("*.py"))
    course = re.sub(r"\{[^{}]*\}", "…", course)  # what is filled in at run time
    own = [line for block in re.findall(r"```text\n(.*?)```", section, re.S) for line in block.splitlines()]
    own = [line for line in own if not line.startswith("ModuleNotFoundError")]
    assert len(own) >= 6
    for line in own:
        line = line.replace('"mnist"', '"…"').replace(" mnist ", " … ").removesuffix("mnist.").replace("URLError: ", "")
        line = line.replace(": digits", ": …")
        line = line.removeprefix("AttributeError: ").replace("train-images-idx3-ubyte", "…").replace("'…'", "…")
        for part in filter(None, (piece.strip(" ():,;.") for piece in line.split("…"))):
            assert part in course, f"no code prints {part!r}"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_between_documents_lead_somewhere(name):
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            assert (ROOT / target.split("#")[0]).exists(), target


def test_links_into_a_document_meet_its_headings():
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)}
    for path in LESSONS:
        assert set(re.findall(r"\.\./README\.md#([\w-]+)", path.read_text())) <= headings


# ---------------------------------------------------------------- CITATION


def test_the_citation_file_is_valid_and_agrees_with_the_project():
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    known = {"cff-version", "message", "type", "title", "abstract", "version", "date-released", "authors"}
    known |= {"repository-code", "license", "keywords", "preferred-citation"}
    assert {"cff-version", "message", "title", "authors"} <= set(cff) <= known
    assert cff["cff-version"] == "1.2.0" and cff["type"] == "software"
    assert re.fullmatch(r"2026-\d\d-\d\d", cff["date-released"])
    assert cff["version"] == PROJECT["version"]
    assert cff["title"].lower().replace(" ", "-") == PROJECT["name"]
    assert README.startswith(f"# {cff['title']}\n")
    assert [author["name"] for author in cff["authors"]] == [author["name"] for author in PROJECT["authors"]]
    assert cff["repository-code"] == PROJECT["urls"]["Repository"]
    assert cff["license"] == ["MIT", "CC-BY-4.0"] and PROJECT["license"] == "MIT"
    preferred = cff["preferred-citation"]
    assert all(preferred[name] == cff[name] for name in ("title", "authors", "version", "type"))
    assert preferred["year"] == 2026 and preferred["url"] == cff["repository-code"]


# ---------------------------------------------------------------- CONTRIBUTING


def test_there_are_ten_steps():
    assert re.findall(r"^(\d+)\. ", CONTRIBUTING, re.M) == [str(n) for n in range(1, 11)]


def test_what_contributing_names_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([\w-]+)", CONTRIBUTING)):
        assert re.search(rf"^{target}:", makefile, re.M), f"make {target}"
    for name in set(re.findall(r"`((?:tests|tools|course_utils|lessons)/[\w./]+)`", CONTRIBUTING)):
        name = name.replace("NN_name", "00_start_here").replace("test_name", "test_readme")
        assert (ROOT / name).exists(), name
    parts = re.search(r"in their order: ([\w, ]+)\.", CONTRIBUTING)[1]
    assert parts.split(", ") == build.PARTS


# ---------------------------------------------------------------- the template


TEMPLATE = ROOT / "lessons" / "_template.md"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A tree in which the template has become lesson 77."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tree)
    shutil.copytree(ROOT / "lessons" / "figures", tree / "lessons" / "figures")
    shutil.copy(TEMPLATE, tree / "lessons" / "77_lost_messages.md")
    products, refusals = build.build(tree)
    (tree / "course_utils").mkdir()
    (tree / "course_utils" / "__init__.py").touch()  # for the linter, which sorts our own imports last
    for name, text in products.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    return tree, products, refusals


def test_the_template_builds_and_is_no_lesson_itself(built):
    _, products, refusals = built
    assert refusals == []
    assert set(products) == {"notebooks/77_lost_messages.ipynb", "course_utils/rules/lost_messages.py"}
    assert not any("template" in name for name in build.build(ROOT)[0])


def test_the_template_s_products_pass_the_linter(built):
    tree, products, _ = built
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--quiet",
        "--ignore",
        "I001",
        *products,
    ]  # I001: needs the package
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_template_runs_from_top_to_bottom_on_the_digits(built, monkeypatch):
    tree, _, _ = built
    digits = replace(cu.load_dataset("digits", device="cpu"), requested="mnist")

    def load_dataset(name, limit=None):
        return digits

    monkeypatch.setattr(cu, "load_dataset", load_dataset)
    monkeypatch.setattr(cu, "setup", lambda seed: "cpu")
    monkeypatch.setenv("CI", "true")
    cells = nbformat.read(tree / "notebooks" / "77_lost_messages.ipynb", 4).cells
    torch.manual_seed(0)
    namespace = {}
    for cell in cells:
        if cell.cell_type == "code":
            exec(cell.source, namespace)
    plt.close("all")
    assert namespace["lab"].error is None and namespace["lab"].history.samples > 0
    assert issubclass(namespace["LostMessages"], cu.Rule)


def test_the_template_s_exercise_is_solved_by_its_solution():
    (solution,) = SOLUTION.findall(TEMPLATE.read_text())
    cells = jupytext.read(TEMPLATE).cells
    stub, check = (
        next(c.source for c in cells if tag in c.metadata.get("tags", []) and "my_lossy_update" in c.source)
        for tag in ("exercise", "check")
    )
    assert FUNCTION.search(stub)[1] == FUNCTION.search(solution)[1] == "my_lossy_update"
    assert tried(solution, check)[0].startswith("✓") and tried(stub, check)[0].startswith("NOT DONE")
    assert "f′ is missing" in tried(solution.replace(" * (1 - h * h)", ""), check)[0]


def test_the_template_uses_every_part_and_explains_it():
    text = TEMPLATE.read_text()
    assert re.findall(r'"part": "(\w+)"', text) == build.PARTS
    for part in text.split("+++ {")[1:]:
        assert "<!--" in part, part[:40]
