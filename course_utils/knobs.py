"""The knobs of a rule: settings declared once, in its class, and checked wherever they are set."""

from course_utils.checks import is_number, is_whole, plain


class Knob:
    """A setting of a rule, declared in its class and checked wherever it is set: constructor, slider or schedule.

        feedback_scale = Knob(0.05, at_least(0), slider=(5e-4, 5.0, "log"), live=True)

    default: its value if nothing is said. allowed: (words, test), as `at_least`, `above`, `between` and `whole` make
    it, or (words, test, choices) from `one_of`. slider: (low, high, "log" | "linear") for the playground, or None.
    live: `backward` reads it anew each time, so it may move while training runs. ValueError for what is not allowed.
    """

    def __init__(self, default, allowed, slider=None, live=False):
        self.default, self.slider, self.live = default, slider, live
        self.words, self.test, *choices = allowed
        self.choices = choices[0] if choices else ()
        self.name = "knob"
        self.check(default)
        if slider is not None:
            low, high, scale = slider
            if (
                not low < high
                or not low <= default <= high
                or scale not in ("log", "linear")
                or low <= 0
                and scale == "log"
            ):
                raise ValueError(
                    f"slider is {slider}; write (low, high, 'log' or 'linear'), default {default!r} inside"
                )

    # Python calls these three: when the class is made, when `rule.decay` is read, when it is set (a descriptor).

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, rule, owner=None):
        return self if rule is None else rule.__dict__[self.name]

    def __set__(self, rule, value):
        rule.__dict__[self.name] = self.check(value)

    def check(self, value):
        """The value as Python's own number; ValueError when it is not allowed."""
        value = plain(value)
        try:
            good = self.test(value)
        except TypeError:  # it cannot even be compared
            good = False
        if not good:
            raise ValueError(f"{self.name} is {value!r}; it must be {self.words}")
        return value


class KnobByLayer(Knob):
    """A knob that is one number for all hidden layers, or a list of one for each; allowed: of each number."""

    def __set__(self, rule, value):
        if not isinstance(value, (list, tuple)):
            return super().__set__(rule, value)
        hidden = rule.net.depth - 1
        if len(value) != hidden:
            words = f"{self.words}, or a list of one for each hidden layer ({hidden})"
            raise ValueError(f"{self.name} is {value!r}; it must be {words}")
        rule.__dict__[self.name] = [self.check(v) for v in value]


def at_least(low):
    return f"a number, {low:g} or larger", lambda value: is_number(value) and value >= low


def above(low):
    return f"a number above {low:g}", lambda value: is_number(value) and value > low


def between(low, high):
    return f"a number from {low:g} to {high:g}", lambda value: is_number(value) and low <= value <= high


def whole(low):
    return f"a whole number, {low} or larger", lambda value: is_whole(value) and value >= low


def one_of(*choices):
    kinds = [(type(choice), choice) for choice in choices]  # 1 is not True
    return f"one of: {', '.join(map(repr, choices))}", lambda value: (type(value), value) in kinds, choices
