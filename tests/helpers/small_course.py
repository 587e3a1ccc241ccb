"""A course of two lessons in a folder, for tests of the build: lesson 06 is a rule, lesson 02 a tool."""

import nbformat

from tools import build

PYPROJECT = '[project]\nname = "x"\n[project.urls]\nRepository = "https://github.com/someone/course"\n'
OUTLINE = """\
parts: {I: The problem, III: No weight transport}
lessons:
  02_measuring: {part: I, title: Measuring}
  06_toy_rule: {part: III, title: Toy rule}
  07_planned: {part: III, title: Planned}
"""
FRONT = """\
---
jupytext: {text_representation: {extension: .md, format_name: myst}}
kernelspec: {name: python3, display_name: Python 3 (ipykernel), language: python}
lesson:
  question: How far?
  kind: KIND
  minutes: {read: 35, run: 1}
---
"""

FIRST_EXPORT = "import math\n\n\nclass Toy:\n    def area(self):\n        return math.pi  # (1)"
SECOND_EXPORT = "class Other(Toy):\n    pass"
CELL = "```{code-cell} ipython3\npass\n```"


def code(source, tags=""):
    return f"```{{code-cell}} ipython3\n:tags: [{tags}]\n\n{source}\n```"


RULE = {
    "title": "# Toy rule\n\n{{badges}}\n\n{{minutes}}\n\n![the circuit, forward and back](made/x.svg)",
    "objectives": "Derive it. See [measuring](../02_measuring/lesson.md#angles) and [read me](../../README.md).",
    "question": "How far?\n\n```{code-cell} ipython3\nmy_prediction = None\n```",
    "theory": "$$y_{{i}} = x \\tag{1}$$",
    "toy": "```{code-cell} ipython3\n:tags: [setup]\n:part: toy\n\nprint(1)\n```",
    "rule": f"In the code.\n\n{code(FIRST_EXPORT, 'export')}\n\nand\n\n{code(SECOND_EXPORT, 'export')}",
    "facts": "Facts.",
    "exercise": "<details><summary>hint</summary>\n\n[see](https://example.org)\n\n</details>",
    "mnist": "Train.",
    "measure": "Measure.",
    "play": "Play.",
    "break": "Break.",
    "brain": "Brain.",
    "sum": "Sum.",
}
TOOL = {"title": "# Measuring", "objectives": "Measure.", "question": "What?", "sum": "That."}
SYNTHESIS = {"title": "# All", "objectives": "Compare.", "question": "Who?", "measure": "All.", "sum": "That."}

EXERCISE = """\
<details class="solution"><summary>Solution</summary>

```python
def my_identity(x):
    return x
```
</details>

```{slips} my_identity
- ["return x", "return -x"]
```"""

SOURCE = "lessons/06_toy_rule/lesson.md"
NOTEBOOK, MODULE = "notebooks/06_toy_rule.ipynb", "course_utils/rules/toy_rule.py"


def lesson_text(parts, kind="rule"):
    """A lesson; a text that begins with a code cell carries its part in the cell's options."""
    marked = [t if t.startswith("```{") else f'+++ {{"part": "{name}"}}\n\n{t}' for name, t in parts.items()]
    return FRONT.replace("KIND", kind) + "\n" + "\n\n".join(marked) + "\n"


def write(root, name, text):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def small_course(root):
    """A repository with a tool lesson, a rule lesson, a template and a figure."""
    write(root, "pyproject.toml", PYPROJECT)
    write(root, "README.md", "read me")
    write(root, "course_utils/rules/__init__.py", "ALL = {}\n")
    write(root, "lessons/outline.yaml", OUTLINE)
    write(root, "lessons/_template/lesson.md", "not a lesson")
    write(root, "lessons/02_measuring/lesson.md", lesson_text(TOOL, "tool"))
    write(root, "lessons/06_toy_rule/made/x.svg", "<svg/>")
    write(root, SOURCE, lesson_text(RULE))
    return root


def run(root, *options):
    return build.main(["--root", str(root), *map(str, options)])


def change(root, **parts):
    """Write lesson 06 anew with some parts replaced; None leaves a part out."""
    new = {name: text for name, text in (RULE | parts).items() if text is not None}
    write(root, SOURCE, lesson_text(new))


def cells(root, name=NOTEBOOK):
    return nbformat.read(root / name, as_version=4).cells
