"""README, CONTRIBUTING, CITATION and the table of symbols: what they say is so."""

import re
import tomllib

import pytest
import torch
import yaml

import course_utils as cu
from tools import lessons, refuse
from tools.lessons import ROOT

README, CONTRIBUTING = ((ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
START = lessons.find("00").source.read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


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
    for lesson in lessons.all_lessons():
        assert lesson.number == "00" or "| symbol | shape |" not in lesson.source.read_text()


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
    for lesson in lessons.all_lessons():
        assert set(re.findall(r"\.\./README\.md#([\w-]+)", lesson.source.read_text())) <= headings


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
        name = name.replace("NN_name", "06_feedback_alignment").replace("test_name", "test_feedback_alignment")
        assert (ROOT / name).exists(), name
    parts = re.search(r"in their order: ([\w, ]+)\.", CONTRIBUTING)[1]
    assert parts.split(", ") == refuse.PARTS
