"""Draw what lessons show as files: `python -m tools.figures 06` draws lesson 06, without a number all of them.

A lesson's figures.py has a function for each drawing: `circuit()` becomes made/circuit.svg, and `play(data)`, which
asks for images, is given MNIST. What begins with an underscore is no drawing.
"""

import inspect
import io
import sys
from types import ModuleType

import matplotlib

import course_utils as cu
from tools.lessons import ROOT, Lesson, chosen, write

TEMPLATE = Lesson(ROOT / "lessons" / "_template")


def drawings(lesson):
    """{name: function} of everything that the lesson's figures.py draws."""
    if not lesson.figures.exists():
        return {}
    module = ModuleType(f"lesson {lesson.number}")
    exec(compile(lesson.figures.read_text(encoding="utf-8"), lesson.figures, "exec"), vars(module))
    own = [f for f in vars(module).values() if inspect.isfunction(f) and f.__module__ == module.__name__]
    return {function.__name__: function for function in own if not function.__name__.startswith("_")}


def drawn(function, data):
    """The figure of one function; data: () → Dataset, called when the function asks for images."""
    figure = function(data()) if "data" in inspect.signature(function).parameters else function()
    if figure is None:
        raise ValueError(f"{function.__module__}: {function.__name__}() returned None; it must end in `return figure`")
    return figure


def save_svg(figure, path):
    """Write a figure as an SVG that is the same, byte for byte, each time it is drawn with the same matplotlib."""
    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "without-backprop", "svg.fonttype": "path"}):
        figure.savefig(picture, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    write(path, picture.getvalue())


def mnist():
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    return data


def main(numbers):
    cu.setup(seed=0, device="cpu")
    for lesson in chosen(numbers) if numbers else [TEMPLATE, *chosen()]:
        for name, function in drawings(lesson).items():
            save_svg(drawn(function, mnist), lesson.made / f"{name}.svg")
            print(f"drew {lesson.stem}/made/{name}.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
