# Exported from lessons/09_kolen_pollack/lesson.md. Edit the lesson, not this file.

from course_utils.data import load_dataset
from course_utils.runs import make_rule, read_call, run_rule


def moving_run(name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None, **training):
    """As `runs.one_run`; a knob may move with the images seen: "KolenPollack(decay=[[0, 0.01], [20000, 0.0]])"."""
    kind, schedules = read_call(name)
    rule, data = make_rule(kind, sizes, seed, **(network or {})), load_dataset(dataset, limit=limit)
    return run_rule(rule, name, data, lr, seed, test=test, network=network, knobs=schedules, **training)
