"""One run of a rule, steered while it trains, and the code that repeats it. Knows no widgets."""

from course_utils import rules
from course_utils.doors import takes_seed
from course_utils.network import MLP
from course_utils.plots import judged_by
from course_utils.safely import held
from course_utils.settings import Schedule, Settings
from course_utils.training import steps

LIVE = ["lr", "input_noise", "activity_noise"]  # what acts while training runs, besides the rule's `live_knobs`


class LiveRun:
    """A fresh network under a rule, ready for its first step.

    settings: {name: value} of all in `LIVE`, of the rule's knobs, and of hidden_units for the hidden layers in
    sizes. network: more arguments for `MLP`; training: for `steps`, and its seed for the rule as well.
    Attributes: rule; history; stop(); settings, with a schedule in place of each value that is live.
    """

    def __init__(self, rule_class, data, sizes, settings, network, training):
        if clash := sorted({*LIVE, "knobs"} & set(training)):
            raise ValueError(f"training holds {', '.join(clash)}, which the sliders set; leave it out there")
        knobs = {name: value for name, value in settings.items() if name not in LIVE}
        if takes_seed(rule_class):
            knobs = {"seed": training["seed"], **knobs}
        if units := knobs.pop("hidden_units", None):
            sizes = [sizes[0], *[units] * (len(sizes) - 2), sizes[-1]]
        self.rule = rule_class(MLP(sizes, **network), **knobs)
        # The run reads these schedules at every step; `act` moves them, and they remember how.
        moving = {name: Schedule(value) for name, value in settings.items() if name in (*LIVE, *rule_class.live_knobs)}
        self.settings = {**settings, **moving}
        live_knobs = {name: moving.pop(name) for name in rule_class.live_knobs if name in moving}
        self.runner = steps(self.rule, data, Settings(**training, **moving, knobs=live_knobs))
        self.history = next(self.runner)
        self.stop = self.runner.close  # the run is then "stopped", with a last evaluation
        name = rule_class.__name__
        prefix = "cu.rules." if rules.ALL.get(name) is rule_class else ""
        self.made = f"net = cu.MLP({sizes}{_keywords(network)})\nrule = {prefix}{name}(net{_keywords(knobs)})\n"

    def advance(self, go_on):
        """Train while go_on() is true and the run is not at its end."""

        def go(asked):
            while self.history.status == "running" and go_on():
                next(self.runner)
                if asked:
                    self.stop()

        try:
            held(go)
        except KeyboardInterrupt:
            pass  # the kernel was interrupted twice: `steps` has ended the run as stopped
        except Exception:
            self.history.end("stopped", "the rule raised an error")
            raise

    def act(self, name, value):
        """Give what is live another value from here on."""
        if self.history.status == "running":
            self.settings[name].move(self.history.samples, value)

    @property
    def code(self):
        """What repeats the run on the same data, as far as it has come, bit for bit."""
        return self.made + self.history.call

    def in_words(self, frame):
        """How far it has come, for those who do not see the figure; frame: that of the history."""
        planned = self.history.settings.epochs * self.history.images
        seen = f"{self.history.samples:,} of {planned:,.0f} training images seen"
        angles = frame.filter(like="angle_").ffill().iloc[-1].dropna()
        words = [f"angle of layer {name[6:]}: {angle:.0f}°" for name, angle in angles.items()]
        last, measure = frame.iloc[-1], judged_by(frame)
        score = f"validation {measure[4:]} {last[measure]:{'.1%' if measure == 'val_accuracy' else '.4g'}}"
        own = [f"{name}: {last[name]:.4g}" for name in self.history.settings.metrics or ()]
        return " · ".join(filter(None, [self.history.note, self.history.message or seen, score, *own, *words]))


def _keywords(arguments):
    return "".join(f", {name}={value!r}" for name, value in arguments.items())
