"""Text from elsewhere: script, frames, events and links to where nobody should go are refused in every spelling."""

import time

import pytest
from helpers import small_course as course
from helpers.small_course import NOTEBOOK, change, code, run, write

from tools import elsewhere, lessons


@pytest.fixture
def tree(tmp_path):
    return course.small_course(tmp_path)


HOSTILE = {
    "script": "<script>alert(1)</script>",
    "script in capitals": "<ScRiPt src='https://x.org/a.js'></sCrIpT>",
    "script in a list": "- a\n- b <script>alert(1)</script>",
    "script behind a tick": "text `\n<script>alert(1)</script>\n` more",
    "script in maths": "$$\n<script>alert(1)</script>\n$$",
    "script in a MyST fence of colons": ":::{raw} html\n<script>alert(1)</script>\n:::",
    "script after a comment": "<!-- a --><script>alert(1)</script>",
    "script cut in two": "<scr<script>ipt>",
    "script that does not end": "<script src=x",
    "a comment that does not end": "<!-- <script>alert(1)</script>",
    "raw HTML": "```{raw} html\n<script>alert(1)</script>\n```",
    "another file": "```{include} /etc/passwd\n```",
    "another file, by tildes": "~~~{literalinclude} /etc/passwd\n~~~",
    "frame": '<iframe src="https://example.org"></iframe>',
    "frame of one's own": '<iframe srcdoc="<script>alert(1)</script>">',
    "object": '<object data="x.svg"></object>',
    "embed": "<embed src=x>",
    "style": "<style>body {display: none}</style>",
    "base": '<base href="https://example.org/">',
    "meta": '<meta http-equiv="refresh" content="0; url=https://example.org">',
    "form": '<form action="https://example.org"><input name="password"></form>',
    "svg": "<svg onload=alert(1)>",
    "a picture's event": '<img src="made/x.svg" alt="one two three four" onerror="alert(1)">',
    "a fold's event": "<details ontoggle=alert(1) open><summary>x</summary></details>",
    "an event behind a >": '<img alt="a > b c d" src="made/x.svg" onerror="alert(1)">',
    "an event on a line of its own": '<img src="made/x.svg" alt="one two three four"\nonerror\n=alert(1)>',
    "style of a tag": '<p style="position: fixed">x</p>',
    "javascript": "[x](javascript:alert(1))",
    "javascript in capitals": "[x](JaVaScRiPt:alert(1))",
    "javascript by a character": "[x](&#106;avascript:alert&#40;1&#41;)",
    "javascript by a name": "[x](javascript&colon;alert(1))",
    "javascript in angles": "<javascript:alert(1)>",
    "javascript by reference": "[x][y]\n\n[y]: javascript:alert(1)",
    "javascript by a reference nobody uses": "Text.\n\n[y]: javascript:alert(1)",
    "javascript as an image": "![one two three four](javascript:alert(1))",
    "javascript in HTML": '<a href="javascript:alert(1)">x</a>',
    "javascript in HTML, with a tab": '<a href="java&#9;script:alert(1)">x</a>',
    "javascript in HTML, without quotes": "<a href=javascript:alert(1)>x</a>",
    "vbscript": "[x](vbscript:x)",
    "data": "[x](data:text/html;base64,PHNjcmlwdD4=)",
    "data as an image": "![one two three four](data:image/svg+xml,x)",
    "file": "[x](file:///etc/passwd)",
    "an attachment": "![one two three four](attachment:x.png)",
    "somebody else's host": "[x](//example.org/a)",
    "somebody else's host in HTML": '<img alt="one two three four" src="//example.org/a.png">',
    "backslashes": r'<a href="\\example.org">x</a>',
    "maths with a link": r"$\href{javascript:alert(1)}{x}$",
    "maths with a style": r"$\style{position: fixed}{x}$",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_it_is_refused_with_its_cell(what, tree, capsys):
    change(tree, facts=f"Facts.\n\n{HOSTILE[what]}")
    assert run(tree) == 1 and not (tree / NOTEBOOK).exists()
    out = capsys.readouterr().out
    assert "lessons/06_toy_rule/lesson.md: cell 1" in out and "(facts)" in out and " — " in out


HARMLESS = {
    "the tags of lessons": '<details class="solution"><summary>a</summary>\n\nb<br/><sub>c</sub>\n</details>',
    "a picture": '<img src="made/x.svg" alt="a > b, as one sees" width="40%">',
    "links": "[a](https://example.org/a(b)) <https://example.org> [m](mailto:a@b.org) [h](#facts) [r](../../README.md)",
    "script as code": "`<script>` and\n\n```html\n<script>alert(1)</script>\n```\n\nand `[x](javascript:alert(1))`",
    "a comment": "<!-- by machine: lessons -->\n\n<!-- end: lessons -->",
    "smaller than": "If a < b and c > d, <3, $x<y$ and $i<n, m>k$.",
    "a word with a colon": "[note: this](made/x.svg) and data: many, file: none.",
    "code in a cell": code("html = '<script>'"),
}


@pytest.mark.parametrize("what", HARMLESS)
def test_what_lessons_are_made_of_is_let_through(what, tree, capsys):
    change(tree, facts=f"Facts.\n\n{HARMLESS[what]}")
    assert run(tree) == 0, capsys.readouterr().out


def test_every_lesson_there_is_holds_nothing_hostile():
    for lesson in lessons.all_lessons():
        assert not list(elsewhere.faults_of_source(lesson.source.read_text(encoding="utf-8")))


def test_the_question_goes_into_the_maps_and_is_asked_too(tree, capsys):
    path = tree / course.SOURCE
    write(
        tree,
        course.SOURCE,
        path.read_text().replace("How far?\n  kind", '"How <script>alert(1)</script> far?"\n  kind'),
    )
    assert run(tree) == 1
    assert "lesson.md: cell 0 (front matter): the tag <script>" in capsys.readouterr().out


def test_a_picture_that_is_a_link_out_of_the_tree_is_refused(tree, tmp_path_factory, capsys):
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.svg"
    secret.write_text("<svg/>")
    (tree / "lessons/06_toy_rule/made/y.svg").symlink_to(secret)
    change(tree, facts="![one two three four](made/y.svg)")
    assert run(tree) == 1
    assert "broken link 'made/y.svg'" in capsys.readouterr().out


# ------------------------------------------------------------------ texts that would take for ever

ROUNDS = "\n".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 9)}]" for i in range(9))
BOMB = f"a: &a [x, x, x, x, x, x, x, x, x]\n{ROUNDS}"
ENDLESS = {
    "tags that do not end": "<a " * 20_000,
    "tags with a quote": "<a b='" * 15_000,
    "folds": "<details" * 5_000,
    "folds of solutions": '<details class="solution">```python\n' * 2_500,
    "fences of Python": '<details class="solution">\n' + "```python\n```\n" * 6_000,
    "comments": "<!--" * 20_000,
    "pictures": "![" * 40_000,
    "references": "[a\n" * 30_000,
    "environments": "".join(rf"\begin{{a{i}}}" for i in range(6_000)),
    "newlines": "a" + "\n" * 90_000 + "b",
    "slips": "```{slips} my_x\n" * 6_000,
    "ticks": " ".join("`" * k for k in range(1, 300)),
    "dollars": "$a " * 30_000,
    "cells": f"{course.CELL}\n" * 100_000,
    "marks": '+++ {"part": "facts"}\n\n' * 4_000,
}


@pytest.mark.parametrize("what", ENDLESS)
def test_a_text_of_beginnings_is_read_in_time(what, tree, capsys):
    """In processor seconds; each took more than 20 where a pattern looks again and again to the end of the text."""
    change(tree, facts=f"Facts.\n\n{ENDLESS[what]}")
    begin = time.process_time()
    run(tree)
    assert time.process_time() - begin < 10


@pytest.mark.parametrize("place", ["front matter", "options of a cell", "options between lines"])
def test_yaml_that_repeats_itself_is_refused(place, tree, capsys):
    options = "".join(f":{line}\n" for line in BOMB.splitlines())
    if place == "front matter":
        text = (tree / course.SOURCE).read_text().replace("lesson:\n", f"{BOMB}\nlesson:\n", 1)
        write(tree, course.SOURCE, text)
    else:
        block = options if place == "options of a cell" else f"---\n{BOMB}\n---\n"
        change(tree, facts=f"Facts.\n\n```{{code-cell}} ipython3\n{block}\npass\n```")
    begin = time.process_time()
    assert run(tree) == 1 and time.process_time() - begin < 10
    assert "cell 0 (source): a" in capsys.readouterr().out


def test_a_lesson_as_long_as_a_book_is_refused(tree, capsys):
    change(tree, facts="word " * 30_000)
    assert run(tree) == 1
    assert "characters — make two lessons of it: 120,000 at most" in capsys.readouterr().out
