"""A rule under sliders: train it live, turn its knobs while it runs, compare runs, read off the code.

The only module that knows widgets. What it trains runs through `training.steps`, as in `train`.
"""

import asyncio
import functools
import html
import inspect
import io
import math
import textwrap
import time
import traceback
from collections import deque

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure

from course_utils import plots, rules
from course_utils.data import load_dataset
from course_utils.network import MLP
from course_utils.rule import Rule
from course_utils.training import History, steps

LIVE = ("lr", "input_noise", "activity_noise")  # these act while training runs
CHUNK = 0.03  # seconds of training between two looks at the widgets
PALE = [(plots.ORANGE, "--"), (plots.GREEN, "-."), (plots.PURPLE, ":"), (plots.SKY, (0, (5, 1)))]
PRESS_TRAIN = "Press Train first: then these lines will repeat the run on the screen."


def playground(rule_class, data=None, sizes=None, epochs=3, seed=0, batch_size=128, **network):
    """Sliders for a rule: learning rate, noise, hidden units and the rule's own knobs, with a live figure.

    rule_class: a subclass of `Rule` (the class, not a rule made from it). data: as from `load_dataset`; None
    loads MNIST. sizes: of the network, input first; None means one hidden layer of 128 units. network: more
    arguments for `MLP`, such as activation="tanh". Learning rate and noise act while training runs, hidden
    units and knobs at the next Train. Returns a `Playground`, which shows itself as the last line of a cell.
    Raises ValueError for a class that is no rule and for a knob that makes no slider.
    """
    return Playground(rule_class, data, sizes, epochs, seed, batch_size, network)


def _shows_errors(method):
    """Jupyter hides the errors of callbacks: show them in the widget, keep them for `wait`, and let them go on."""

    @functools.wraps(method)
    def guarded(self, *arguments):
        try:
            return method(self, *arguments)
        except Exception as error:
            self.error = error
            trace = html.escape("".join(traceback.format_exception(error, limit=-3)))
            self.message.value = f'<pre style="border-left: 4px solid {plots.RED}">{trace}</pre>'
            raise

    return guarded


class Playground:
    """What `playground` returns. sliders: {name: widget}; train, stop, reset, show_code: the buttons.

    rule, history: the run on the screen (history is None before the first); error: what went wrong last.
    In plain Python there is no event loop to train on: there `run_steps` drives the run.
    """

    def __init__(self, rule_class, data, sizes, epochs, seed, batch_size, network):
        if not (isinstance(rule_class, type) and issubclass(rule_class, Rule)):
            raise ValueError(f"rule_class is {rule_class!r}; it must be a class derived from cu.Rule")
        self.rule_class, self.loads_data = rule_class, data is None
        self.data = load_dataset("mnist") if data is None else data
        x, y = self.data.x_train, self.data.y_train
        self.sizes = list(sizes or [x.shape[1], 128, int(y.max()) + 1])
        every = max(1, min(2_500, len(x) // 4))
        self.training = {"epochs": epochs, "batch_size": batch_size, "schedule": "constant", "seed": seed}
        self.training |= {"eval_every": every, "probe_every": max(1, every // 4)}
        self.network = {"seed": seed, **network}
        self.loop = self.task = self.runner = self.history = self.error = None
        self.earlier = deque(maxlen=len(PALE))  # of (colour and line, fixed settings, History)
        self.runs, self.samples_shown, self.drawn, self.next_draw = 0, 10 * every, None, 0.0
        self.figure = Figure(figsize=(9, 4.2), dpi=100)  # not from pyplot, which would keep it for ever
        self._make_sliders(inspect.signature(rule_class).parameters)
        self._lay_out()
        self._running_loop()
        self._make_rule()  # so that a bad argument is refused here and not at the first Train
        self._draw()

    def _ipython_display_(self):
        display(self.widget)

    def _make_sliders(self, parameters):
        top = 10.0 ** math.ceil(math.log10(self.rule_class.lr) + 2)
        self.sliders = {
            "lr": _slider("learning rate", top / 1e5, top, "log", self.rule_class.lr),
            "input_noise": _slider("input noise (std; pixels are 0–1)", 0.0, 1.0, "linear", 0.0),
            "activity_noise": _slider("activity noise (std)", 0.0, 2.0, "linear", 0.0),
        }
        if len(self.sizes) > 2:
            width = self.sizes[1]
            self.sliders["hidden_units"] = _slider(
                "hidden units", min(16, width), max(512, width), "log", width
            )
        for name, (low, high, scale) in self.rule_class.knobs.items():
            default = parameters[name].default if name in parameters else None
            self.sliders[name] = _slider(name.replace("_", " "), low, high, scale, default)
        self.fixed_names = [name for name in self.sliders if name not in LIVE]
        self.seed = {"seed": self.training["seed"]} if "seed" in parameters else {}
        self.defaults = {name: slider.value for name, slider in self.sliders.items()}
        for name, slider in self.sliders.items():
            slider.add_class("cu-" + name.replace("_", "-"))
            if name in LIVE:
                slider.observe(lambda _, name=name: self._on_loop(self._act, name), names="value")

    def _lay_out(self):
        self.train = self._button("Train", self._train, "a fresh run with the sliders as they stand")
        self.stop = self._button("Stop", self._end, "end the run")
        self.reset = self._button("Reset", self._reset, "sliders to their defaults, curves away")
        self.show_code = self._button("Show code", self._show_code, "code that repeats the run on the screen")
        self.status, self.message, self.code = widgets.HTML(), widgets.HTML(), widgets.HTML()
        # Without align_self the box stretches the picture.
        size = widgets.Layout(width="900px", max_width="100%", height="auto", align_self="flex-start")
        self.image = widgets.Image(format="png", layout=size)
        panels = {"at once, also while training": LIVE, "at the next Train": self.fixed_names}
        columns = [
            widgets.VBox([widgets.HTML(f"<b>Act {when}</b>"), *map(self.sliders.get, names)])
            for when, names in panels.items()
            if names
        ]
        sliders = widgets.HBox(columns, layout=widgets.Layout(flex_flow="row wrap"))
        buttons = widgets.HBox([self.train, self.stop, self.reset, self.show_code])
        rows = [sliders, buttons, self.image, self.status, self.message, self.code]
        for name, row in zip(
            ["sliders", "buttons", "figure", "status", "message", "code"], rows, strict=True
        ):
            row.add_class(f"cu-{name}")
        self.widget = widgets.VBox(rows)

    def _button(self, text, action, tooltip):
        button = widgets.Button(description=text, tooltip=tooltip)
        button.add_class("cu-" + text.lower().replace(" ", "-"))
        button.on_click(lambda _: self._on_loop(action))
        return button

    def _running_loop(self):
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if self.loop is None or self.loop.is_closed():
            self.loop = here
        return here

    def _on_loop(self, action, *arguments):
        # Some kernels run callbacks in a thread of their own, in the middle of a step. What touches the run
        # belongs between two chunks of it, on its own loop.
        if self._running_loop() is self.loop or self.loop is None:
            action(*arguments)
        else:
            self.loop.call_soon_threadsafe(action, *arguments)

    def _values(self, names):
        # Three digits keep the code short; an int stays an int.
        values = {name: self.sliders[name].value for name in names}
        return {name: v if isinstance(v, int) else float(f"{v:.3g}") for name, v in values.items()}

    def _make_rule(self):
        self.fixed = self._values(self.fixed_names)
        knobs = dict(self.fixed)
        width = knobs.pop("hidden_units", None)
        self.sizes[1:-1] = [width] * (len(self.sizes) - 2)
        self.rule_arguments = {**self.seed, **knobs}
        self.rule = self.rule_class(MLP(self.sizes, **self.network), **self.rule_arguments)

    @_shows_errors
    def _begin(self):
        self._end()
        if self.history is not None and self.history.steps:
            self.earlier.append((PALE[self.runs % len(PALE)], self.fixed, self.history))
            self.runs += 1
        self.history = self.error = None
        self.message.value = self.code.value = ""
        self._make_rule()
        # These lists are control and record at once: `steps` reads the last entry, `_act` appends to them.
        schedules = {name: [(0, value)] for name, value in self._values(LIVE).items()}
        self.runner = steps(self.rule, self.data, **self.training, **schedules)
        self.history = next(self.runner)
        self._draw()

    def _train(self):
        self._begin()
        if self.loop is not None:
            self.task = self.loop.create_task(self._run(self.history))

    async def _run(self, history):
        try:
            while history.status == "running":
                end = time.monotonic() + CHUNK
                self._advance(history, lambda end=end: time.monotonic() < end)
                await asyncio.sleep(0)
        finally:
            if self.task is asyncio.current_task():
                self.task = None  # a failed task that nobody keeps or awaits is reported by the loop

    @_shows_errors
    def _advance(self, history, go_on):
        try:
            while history.status == "running" and go_on():
                next(self.runner)
        except KeyboardInterrupt:
            pass  # the kernel was interrupted: `steps` has ended the run as stopped
        except Exception:
            history.end("stopped", "the rule raised an error")
            raise
        finally:
            self._draw(soon=history.status == "running")

    def run_steps(self, n):
        """Train n steps here and now, in a fresh run when none is under way. Returns the run's History."""
        if self.history is None or self.history.status != "running":
            self._begin()
        last = self.history.steps + n
        self._advance(self.history, lambda: self.history.steps < last)
        self._draw()
        return self.history

    async def wait(self):
        """Wait for the end of the run. Raises what went wrong in it, or in a callback."""
        if self.task is not None:
            await self.task
        if self.error is not None:
            raise self.error

    @_shows_errors
    def _end(self):
        if self.history is not None and self.history.status == "running":
            self.runner.close()  # the run is "stopped", with a last evaluation
            self._draw()

    @_shows_errors
    def _act(self, name):
        if self.history is None or self.history.status != "running":
            return
        schedule = self.history.settings[name]
        if schedule[-1][0] == self.history.samples:
            schedule.pop()
        schedule.append((self.history.samples, self._values([name])[name]))

    @_shows_errors
    def _reset(self):
        self._end()
        self.earlier.clear()
        self.history = self.error = None
        self.message.value = self.code.value = ""
        for name, value in self.defaults.items():
            self.sliders[name].value = value
        self._draw()

    @_shows_errors
    def _show_code(self):
        self.code.value = f'<pre style="white-space: pre-wrap">{html.escape(self.run_code)}</pre>'

    @property
    def run_code(self):
        """The code that repeats the run on the screen, as far as it has come, bit for bit."""
        if self.history is None or self.history.steps == 0:
            return PRESS_TRAIN
        name = self.rule_class.__name__
        rule = f"cu.rules.{name}" if rules.ALL.get(name) is self.rule_class else name
        lines = ['data = cu.load_dataset("mnist")'] if self.loads_data else []
        lines.append(f"net = cu.MLP({self.sizes}{_keywords(self.network)})")
        lines.append(f"rule = {rule}(net{_keywords(self.rule_arguments)})")
        return "\n".join([*lines, self.history.call])

    def _draw(self, soon=False):
        """Status line and figure; `soon`: only when the last drawing is some time ago."""
        if soon and time.monotonic() < self.next_draw:
            return
        history = self.history or History({})
        state = (self.history, len(history.rows), history.status, len(self.earlier))
        begin = time.monotonic()
        if state != self.drawn:
            self._draw_figure(history)
            self.drawn = state
        running = self.history is not None and history.status == "running"
        self.train.disabled, self.stop.disabled = running, not running
        self.status.value = self._status_text()
        # At most five times a second, and on a slow machine no more than a fifth of the time.
        self.next_draw = time.monotonic() + max(0.2, 4 * (time.monotonic() - begin))

    def _draw_figure(self, history):
        while self.samples_shown < history.samples:
            self.samples_shown *= 2  # an axis that only grows, and seldom
        self.figure.clear()
        left, right = (self.figure.add_axes((x, 0.42, 0.4, 0.5)) for x in (0.07, 0.58))
        settings = [{**_live(past), **fixed} for _, fixed, past in self.earlier]
        settings.append({**_live(history), **self.fixed})
        differ = [name for name in settings[-1] if len({str(s[name]) for s in settings}) > 1] or ["lr"]
        plots.curves(left, {self.rule.title: history})
        left.lines[-1].set_label(
            "this run: " + _describe(settings[-1], differ) if self.history else "no run yet"
        )
        plots.angles(right, self._frame(history), self.rule.net)
        for ((color, line), _, past), its in zip(
            reversed(self.earlier), reversed(settings[:-1]), strict=True
        ):
            frame, look = self._frame(past), {"color": color, "alpha": 0.5, "linewidth": 1.2}
            left.plot(
                frame.samples, 100 * frame.val_accuracy, linestyle=line, label=_describe(its, differ), **look
            )
            for l in range(len(self.sizes) - 1):
                line = plots.LAYER_STYLES[l % len(plots.LAYER_STYLES)][1]
                right.plot(frame.samples, frame[f"angle_{l + 1}"], linestyle=line, **look)
        left.set(ylim=(-2, 102), yticks=range(0, 101, 20))
        left.set_title(self.rule.title, loc="left", fontsize="medium")
        below = {"loc": "upper left", "bbox_to_anchor": (-0.02, -0.22), "frameon": False, "fontsize": "small"}
        left.legend(**below)
        right.legend(ncols=2, **below)
        for ax in (left, right):
            ax.set_xlim(0, self.samples_shown)
        if history.status == "diverged":
            words = textwrap.fill(history.message, 38)
            look = {"ha": "center", "va": "center", "color": plots.RED, "backgroundcolor": "white"}
            left.text(0.5, 0.5, words, transform=left.transAxes, **look)
        picture = io.BytesIO()
        self.figure.savefig(picture, format="png", pil_kwargs={"compress_level": 1})
        self.image.value = picture.getvalue()

    def _frame(self, history):
        frame = history.frame  # which has no angles before the first probe
        angles = [f"angle_{l}" for l in range(1, len(self.sizes))]
        return frame.reindex(columns=[*frame.columns.difference(angles), *angles])

    def _status_text(self):
        """What the figure shows, in words."""
        history = self.history
        if history is None:
            return "Ready: press Train."
        planned = self.training["epochs"] * len(self.data.x_train)
        running = f"training: {history.samples:,} of {planned:,.0f} images seen"
        angles = [{k: v for k, v in row.items() if k.startswith("angle_")} for row in history.rows]
        latest = next(filter(None, reversed(angles)), {})
        parts = [
            running if history.status == "running" else html.escape(history.message),
            f"validation accuracy {history.rows[-1]['val_accuracy']:.1%}",
            *(f"layer {name[6:]} at {angle:.0f}°" for name, angle in latest.items()),
        ]
        return " · ".join(parts)


def _slider(text, low, high, scale, default):
    """A slider for one number: whole numbers when the default is one, else a range on a log or linear scale."""
    number = isinstance(default, (int, float)) and scale in ("log", "linear")
    if not number or not low <= default <= high or low == high or (scale == "log" and low <= 0):
        raise ValueError(
            f"{text}: ({low}, {high}, {scale!r}) and default {default!r} make no slider; "
            'a knob is {keyword of the constructor: (low, high, "log" | "linear")} with its default in that range'
        )
    look = {
        "description": text,
        "style": {"description_width": "15em"},
        "layout": widgets.Layout(width="30em", max_width="100%"),
        "continuous_update": False,  # one move, one entry in the code
    }
    if isinstance(default, int) and scale == "linear":
        return widgets.IntSlider(default, int(low), int(high), **look)
    if isinstance(default, int):
        count = round(2 * math.log2(high / low)) + 1  # factors of √2
        options = {round(low * (high / low) ** (i / (count - 1))) for i in range(count)} | {default}
        return widgets.SelectionSlider(options=sorted(options), value=default, **look)
    if scale == "log":
        ends = {"min": math.log10(low), "max": math.log10(high)}
        return widgets.FloatLogSlider(default, **ends, step=0.05, readout_format=".2g", **look)
    return widgets.FloatSlider(
        value=default, min=low, max=high, step=(high - low) / 40, readout_format=".3g", **look
    )


def _keywords(arguments):
    return "".join(f", {name}={value!r}" for name, value in arguments.items())


def _live(history):
    return {name: history.settings.get(name) for name in LIVE}


def _describe(settings, names):
    return ", ".join(f"{name.replace('_', ' ')} {_in_words(settings[name])}" for name in names)


def _in_words(value):
    if not isinstance(value, list):
        return f"{value:g}"
    values = [f"{v:g}" for _, v in value]
    return " → ".join(values if len(values) < 4 else [values[0], "…", values[-1]])
