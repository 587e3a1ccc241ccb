"""A rule under sliders: train it live, turn its knobs, compare runs. The only module that knows widgets."""

import asyncio
import math
import time
import traceback
import weakref
from collections import deque
from functools import partial
from html import escape
from itertools import cycle

import ipywidgets as widgets
from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure

from course_utils import plots
from course_utils.checks import check_dataset
from course_utils.live import LIVE, LiveRun
from course_utils.rule import Rule

WIDE, LABEL = {"width": "32em", "max_width": "100%"}, {"description_width": "15em"}
SLIDER = {"layout": WIDE, "style": LABEL, "continuous_update": False}  # one move is one entry in the code
_made: "weakref.WeakSet[Playground]" = weakref.WeakSet()
_png = partial(print_figure, bbox_inches=None, pil_kwargs={"compress_level": 1})  # the quickest


class Playground(widgets.VBox):
    """Sliders for a rule: learning rate, noise, hidden units and the rule's own knobs, with a live figure.

    rule_class: a subclass of `Rule` (the class, not a rule made from it). data: as from `load_dataset`. sizes: None
    means one hidden layer of 128 units. training: more arguments for `train`, such as {"optimizer": "adam"}; network:
    for `MLP`, such as activation="tanh". view(ax, rule) draws a third panel. ValueError for a class that is no rule,
    and for what these refuse. Without an event loop `run_steps` drives the run. Making one ends the runs that Train
    drives in others; so does close(). Attributes: sliders, {name: widget}; train, stop, reset, show_code, the buttons;
    rule and history, of the run on the screen; task, while Train drives it (to be awaited: it raises what goes wrong).
    """

    def __init__(self, rule_class, data, sizes=None, epochs=3, seed=0, training=None, view=None, **network):
        if not (isinstance(rule_class, type) and issubclass(rule_class, Rule)):
            raise ValueError(f"rule_class is {rule_class!r}; it must be a class derived from cu.Rule")
        check_dataset(data)
        self.rule_class, self.data = rule_class, data
        self.view, self.panel = view, _picture(900) if view else widgets.HTML()
        values = data.y_train.is_floating_point()
        outputs = data.y_train.shape[1] if values else int(data.y_train.max()) + 1
        self.sizes = sizes or [data.x_train.shape[1], 128, outputs]
        self.network = {"seed": seed, **({"loss": "squared_error"} if values else {}), **network}
        every = max(1, min(2_500, len(data.x_train) // 4))
        probing = {"eval_every": every, "probe_every": max(1, every // 4)}
        self.training = {"epochs": epochs, "schedule": "constant", "seed": seed, **probing, **(training or {})}
        self.runs: deque = deque(maxlen=5)  # (look, LiveRun); the last is the one on the screen:
        self.run: LiveRun
        self.looks, self.figure = cycle(plots.PALE), Figure(figsize=(9, 4.2), dpi=100)  # pyplot would keep it for ever
        self.samples_shown, self.next_draw, self.drawn = 10 * every, 0.0, None
        self.loop, self.task = asyncio._get_running_loop(), None
        self._make_sliders()
        super().__init__(self._parts())
        self.add_class("cu-playground")
        for lab in [lab for lab in _made if lab.task]:  # the cell run again leaves one training, with no Stop
            lab._on_loop(lab.run.stop)
        _made.add(self)
        self._begin()

    def close(self):
        _ = "run" in vars(self) and self.run.stop()
        super().close()

    def _make_sliders(self):
        top = 10.0 ** math.ceil(math.log10(self.rule_class.lr) + 2)
        self.sliders = {
            "lr": _slider("learning rate", self.rule_class.lr, top / 1e5, top, "log"),
            "input_noise": _slider("input noise (std, pixels 0–1)", 0.0, 0.0, 1.0, "linear"),
            "activity_noise": _slider("activity noise (std)", 0.0, 0.0, 2.0, "linear"),
        }
        if len(set(self.sizes[1:-1])) == 1:  # one slider for all hidden layers, where they are alike
            units = self.sizes[1]
            self.sliders["hidden_units"] = _slider("hidden units", units, min(16, units), max(512, units), "log")
        for name, knob in self.rule_class.knobs.items():
            if knob.slider:
                self.sliders[name] = _slider(name.replace("_", " "), knob.default, *knob.slider)
        self.defaults = self._values()
        self.live = [name for name in self.sliders if name in {*LIVE, *self.rule_class.live_knobs}]
        for name in self.live:
            self.sliders[name].observe(partial(self._act, name), names="value")

    def _parts(self):
        live = [widgets.HTML("<b>Act at once, also while training</b>"), *map(self.sliders.get, self.live)]
        fixed = [slider for name, slider in self.sliders.items() if name not in self.live]
        later = [widgets.VBox([widgets.HTML("<b>Act at the next Train</b>"), *fixed])] if fixed else []
        columns = widgets.HBox([widgets.VBox(live), *later], layout={"flex_flow": "row wrap"})
        self.train = self._button("Train", self._train, "a fresh run with the sliders as they stand")
        self.stop = self._button("Stop", lambda: self.run.stop(), "end the run")
        self.reset = self._button("Reset", self._reset, "sliders to their defaults, curves away")
        self.show_code = self._button("Show code", self._show_code, "code that repeats the run on the screen")
        self.image, self.status, self.message, self.code = _picture(900), widgets.HTML(), widgets.HTML(), widgets.HTML()
        shown = dict(figure=self.image, view=self.panel, status=self.status, message=self.message, code=self.code)
        for name, widget in (self.sliders | shown).items():
            widget.add_class("cu-" + name.replace("_", "-"))
        return [columns, widgets.HBox([self.train, self.stop, self.reset, self.show_code]), *shown.values()]

    def _button(self, text, action, tooltip):
        button = widgets.Button(description=text, tooltip=tooltip).add_class("cu-" + text.lower().replace(" ", "-"))
        button.on_click(lambda _: self._on_loop(action))
        return button

    def _on_loop(self, action, *arguments):
        # Some kernels run callbacks in a thread of their own, amid a step: what touches the run belongs on its loop.
        here = asyncio._get_running_loop()
        if self.loop is None or self.loop.is_closed():
            self.loop = here
        if self.loop is None or self.loop is here:
            self._guarded(action, *arguments)
        else:
            self.loop.call_soon_threadsafe(self._guarded, action, *arguments)

    def _guarded(self, action, *arguments):
        try:  # Jupyter hides the errors of callbacks: show them here, and let them go on
            action(*arguments)
        except Exception as error:
            self.message.value = _in_words(error)
            raise
        finally:
            self._draw(soon=self.history.status == "running")

    def _values(self):  # three digits keep the code short; a whole number stays one
        return {k: s.value if isinstance(s.value, int) else float(f"{s.value:.3g}") for k, s in self.sliders.items()}

    def _begin(self):
        """A fresh run, ready for its first step; the one on the screen becomes a pale line."""
        _ = self.runs and self.run.stop()
        self.message.value = self.code.value = ""
        run = LiveRun(self.rule_class, self.data, self.sizes, self._values(), self.network, self.training)
        if self.runs and not self.run.history.steps:
            self.runs.pop()
        self.run, self.rule, self.history = run, run.rule, run.history
        self.runs.append((next(self.looks), run))
        self._draw()

    def _train(self):
        self._begin()
        if self.loop:
            self.task = self.loop.create_task(self._go(self.run))

    async def _go(self, run):
        try:
            while run.history.status == "running":
                end = time.monotonic() + 0.03  # seconds of training between two looks at the widgets
                self._guarded(run.advance, lambda end=end: time.monotonic() < end)
                await asyncio.sleep(0)
        finally:
            if self.task is asyncio.current_task():
                self.task = None  # the loop reports the error of a task that nobody keeps and nobody awaits

    def run_steps(self, n):
        """Train n steps here and now, in a fresh run when none is under way. Returns the run's History."""
        if self.history.status != "running" or not self.history.steps:
            self._begin()
        last = self.history.steps + n
        self._guarded(self.run.advance, lambda: self.history.steps < last)
        self._draw()
        return self.history

    def _act(self, name, _):
        self._on_loop(self.run.act, name, self._values()[name])

    def _reset(self):
        self.run.stop()
        for name, value in self.defaults.items():
            self.sliders[name].value = value
        self.runs.clear()
        self._begin()

    def _show_code(self):
        self.code.value = f'<pre style="white-space: pre-wrap">{escape(self.run_code)}</pre>'

    @property
    def run_code(self):
        """The code that repeats the run on the screen, as far as it has come, bit for bit."""
        return self.run.code if self.history.steps else "# Press Train first: then this repeats the run."

    def _draw(self, soon=False):
        """Show what has changed; `soon`: unless that was done a moment ago."""
        begin, history, frame = time.monotonic(), self.history, self.history.frame
        if soon and begin < self.next_draw:
            return
        running = history.status == "running" and history.steps > 0
        # A run that `run_steps` has left half-way is driven by nobody: Train may begin another.
        self.train.disabled, self.stop.disabled = running and self.task is not None, not running
        self.status.value = escape(self.run.in_words(frame))
        if (history, len(frame), history.status) != self.drawn:
            self.drawn = history, len(frame), history.status
            while self.samples_shown < history.samples:
                self.samples_shown *= 2  # an axis that only grows, and seldom
            shown = [(look, past.settings, past.history.frame) for look, past in reversed(self.runs)]
            warning = history.message if history.status == "diverged" else ""
            plots.runs(self.figure, self.rule, shown, self.samples_shown, warning)
            self.image.value = _png(self.figure)
            if self.view:
                _paint(self.panel, self.message, self.view, self.rule, Figure((9, 2.6), layout="constrained"))
        # At most five times a second, and on a slow machine for no more than a third of the time.
        self.next_draw = time.monotonic() + max(0.2, 2 * (time.monotonic() - begin))


def _picture(width):
    size = {"width": f"{width}px", "max_width": "100%", "height": "auto"}
    return widgets.Image(format="png", layout={**size, "align_self": "flex-start"})  # else its box would stretch it


def _in_words(error):
    trace = escape("".join(traceback.format_exception(error, limit=-3)))
    return f'<pre style="border-left: 4px solid {plots.RED}">{trace}</pre>'


def _paint(image, message, draw, what, figure, columns=1):
    try:
        draw(figure.subplots(1, columns), what)
        image.value = _png(figure)
    except Exception as error:
        message.value = _in_words(error)  # Jupyter would hide it
        raise


def _slider(text, default, low, high, scale):
    look, whole = {"description": text, "value": default, **SLIDER}, isinstance(default, int)
    if scale == "linear":
        kind, step = (widgets.IntSlider, 1) if whole else (widgets.FloatSlider, (high - low) / 40)
        return kind(min=low, max=high, step=step, **look)
    if whole:
        options = {round(low * 2 ** (i / 2)) for i in range(2 * int(math.log2(high / low)))} | {default, high}
        return widgets.SelectionSlider(options=sorted(options), **look)
    return widgets.FloatLogSlider(min=math.log10(low), max=math.log10(high), step=0.05, readout_format=".2g", **look)


def under_slider(draw, options, value, name, size=(6.4, 3.4), columns=1):
    """A picture under one slider: draw(axes, value) now and after every move.

    options: the values to choose from, `value` the first. size: of the figure, in inches; columns: how many axes side
    by side (more than one come as an array). Returns the widget: slider, picture, and the message of an error in draw.
    """
    slider = widgets.SelectionSlider(options=options, value=value, description=name, **SLIDER)
    image, message = _picture(round(100 * size[0])), widgets.HTML()

    def show(_=None):
        message.value = ""
        _paint(image, message, draw, slider.value, Figure(size, layout="constrained"), columns)

    slider.observe(show, names="value")
    show()
    return widgets.VBox([slider, image, message]).add_class("cu-under-slider")
