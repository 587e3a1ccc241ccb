# Exported from lessons/30_hybrids/lesson.md. Edit the lesson, not this file.

from course_utils.data import load_dataset
from course_utils.runs import SCHEMA, make_rule, provenance
from course_utils.training import evaluate, train


def passes(rule):
    """How often one update sends the batch through the network, forwards, backwards or in a sweep of settling.

    Read off the rule's own inference_steps or draws, and never more than it really takes: who trains from scratch
    gets at least what is due.
    """
    return max(2, 1 + (getattr(rule, "inference_steps", 0) or getattr(rule, "draws", 0)))


def pretrained(
    name, sizes, lr, seed, dataset="mnist", limit=None, test=False, network=None,
    teacher="PredictiveCoding", teacher_lr=None, teacher_epochs=1, epochs=1, scratch=False, **training,
):  # fmt: skip
    """A run for `cu.sweep(…, function=pretrained)`: `teacher_epochs` by the teacher, then `epochs` by the rule.

    scratch: the control, no teacher, but its passes: the rule alone for so many epochs that the totals are equal.
    The column dataset says which of the two it was; samples, epoch and seconds count both phases.
    """
    data = load_dataset(dataset, limit=limit)
    rule = make_rule(name, sizes, seed, **(network or {}))
    settings = {"seed": seed, "progress": False, **training}
    first = make_rule(teacher, sizes, seed, **(network or {}))
    samples, seconds = 0, 0.0
    if scratch:
        epochs += teacher_epochs * passes(first) / passes(rule)
    else:
        before = train(first, data, lr=teacher_lr, epochs=teacher_epochs, **settings)
        rule.net.load_state_dict(first.net.state_dict())
        samples, seconds = before.samples, before.seconds
    frame = train(rule, data, lr=lr, epochs=epochs, **settings).frame[["epoch", "samples", "seconds", "val_accuracy"]]
    frame = frame.assign(
        epoch=frame.epoch + samples / len(data.x_train),
        samples=frame.samples + samples,
        seconds=frame.seconds + seconds,
        test_accuracy=float("nan"),
    )
    if test:
        frame.loc[frame.index[-1], "test_accuracy"] = evaluate(rule, data.x_test, data.y_test)
    facts = {
        "rule": name if isinstance(name, str) else name.__name__,
        "dataset": f"{data.name}, {'from scratch' if scratch else 'after ' + teacher}",
        "sizes": " ".join(["-".join(map(str, sizes)), *(network or {}).values()]),
        "seed": seed,
        "lr": rule.lr if lr is None else lr,
        "noise": 0.0,
        **provenance(data.x_train.device),
    }
    return frame.assign(**facts)[SCHEMA]
