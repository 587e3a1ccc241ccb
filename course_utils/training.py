"""One training loop for every rule: `steps` runs it, `train` and the playground drive it."""

import math
import sys
import time

import torch
from tqdm.auto import tqdm

from course_utils.checkpoints import NONE, Checkpoint
from course_utils.checks import NotFinite, let_in
from course_utils.data import batches_of
from course_utils.device import stream, unattended
from course_utils.history import History
from course_utils.metrics import gradients, layer_angles, no_trace
from course_utils.safely import held
from course_utils.settings import Schedule, Settings, factor

TRAINING_IMAGES = 1_000  # that a row's training accuracy is measured on; more would cost what the validation costs


def train(rule, data, *, progress=True, checkpoint=None, **settings):
    """Train `rule` on `data` with a progress bar; returns the run's `History`.

    epochs=5: how often to see the training set, fractions allowed.
    lr: a number or a `Schedule`, [(samples, value), …]; None takes `rule.lr` (for an optimiser instance: its own).
    batch_size=128. optimizer: "sgd" (with momentum=0.9), "adam", or any torch optimiser instance.
    schedule: a factor on lr, "one_cycle" (up over the first tenth, then a cosine down to 0), "constant",
    "exponential" (down to 1 %) or [(samples, factor), …].
    input_noise=0.0, activity_noise=0.0: std of Gaussian noise on pixels, on hidden pre-activations; like lr.
    knobs: {name of one of the rule's `live_knobs`: like lr}. seed=0: of the batches' order and the noise.
    eval_every, probe_every: in samples. Evaluation defaults to once an epoch, probes (the angle of `.grad` to the
    rule's `reference_gradient` of the same batch, by default the true one) to never. stop_after: end after that many
    samples, with the schedule of all epochs. checkpoint: a file that `resume` goes on from, whatever happens.
    ValueError for anything out of range. Interrupting the kernel returns the history so far. A run whose loss becomes
    NaN or infinite ends with status "diverged" and says so.
    """
    file = NONE if checkpoint is None else Checkpoint(checkpoint, rule, data)
    return drive(rule, steps(rule, data, Settings(**settings), file), progress)


def drive(rule, runner, progress):
    """A run to its end, with a bar; in a run of a sweep in silence, and an interrupt ends the sweep."""
    with held() as asked:
        history, alone = next(runner), unattended.get()
        with tqdm(total=history.planned, desc=rule.title, unit="batch", disable=not progress, mininterval=0.3) as bar:
            try:
                for history in runner:
                    bar.update(history.steps - bar.n)
                    bar.set_postfix_str(f"val {history.rows[-1]['val_accuracy']:.2%}", refresh=False)
                    if asked:
                        raise KeyboardInterrupt
            except KeyboardInterrupt:
                runner.close()
                if alone:
                    raise
            bar.set_postfix_str(f"val {history.rows[-1]['val_accuracy']:.2%}")
    if history.status != "done" and not alone:
        print(f"{rule.title}: {history.message}")
    return history


def steps(rule, data, settings, checkpoint=NONE):
    """Generator behind `train`: yields the run's `History` before the first and after every step. Closing it stops."""
    settings = settings.ready(rule, data)
    optimizer = make_optimizer(rule, settings.optimizer, settings.lr, settings.momentum)
    rates = [group["lr"] for group in optimizer.param_groups]
    try:
        yield from _steps(rule, data, settings, optimizer, rates, checkpoint)
    finally:
        _give_back(rule.net, optimizer, rates)  # again: the first time an interrupt may have come in between


def _steps(rule, data, settings, optimizer, rates, checkpoint):
    net, images = rule.net, len(data.x_train)
    history = History(settings, images)
    losses: list[torch.Tensor] = []
    angles: list[list[float]] = []
    noise = stream("training noise", settings.seed, data.x_train.device)
    noise_seeds = stream("activity noise", settings.seed)
    parts = {"history": history, "optimizer": optimizer, "rates": rates, "losses": losses, "angles": angles}
    checkpoint.begin(**parts, noise=noise, noise_seeds=noise_seeds)
    batches = batches_of(data, settings, history, noise)
    if not history.rows:
        _set_knobs(rule, settings, 0)
        if settings.probe_every:
            angles.append(_probe(history, _first_angles, rule, data, settings.batch_size))
        _add_row(history, rule, data, losses, angles)
    checkpoint.keep(due=True)  # or the first step would be the first to hear that this is not possible
    try:
        yield history
        while history.status == "running":
            begin, probed = time.perf_counter(), history.probe_seconds
            x, y = next(batches)
            let_in(net, x, y)  # `ready` has looked at all of them
            _set_rates(optimizer, rates, settings, history)
            _set_knobs(rule, settings, history.samples)
            probe_due = history.passes(settings.probe_every, len(x))
            reference = _probe(history, rule.reference_gradient, x, y) if probe_due else None
            net.activity_noise = settings.activity_noise.at(history.samples)
            net.noise_seed = int(torch.randint(2**31, (), generator=noise_seeds))
            estimates: list[list[torch.Tensor]] = []
            losses.append(_step(rule, x, y, optimizer, estimates if probe_due else None))
            net.activity_noise = 0.0
            if probe_due:
                angles.append(_probe(history, layer_angles, net, estimates[0], reference))
            row_due = history.passes(settings.eval_every or images, len(x))
            if row_due and x.device.type != "cpu":
                torch.accelerator.synchronize()  # it works behind Python's back; the clock of a row waits for it
            history.samples, history.steps = history.samples + len(x), history.steps + 1
            history.seconds += time.perf_counter() - begin - (history.probe_seconds - probed)
            _look_for_the_end(history, losses[-1], row_due)
            if history.status == "done" and history.steps < history.planned and not row_due:
                checkpoint.keep(due=True)  # it pauses, with a row that the whole run has not
                checkpoint = NONE
            if row_due or history.status != "running":
                _add_row(history, rule, data, losses, angles)
            checkpoint.keep(due=row_due or history.status != "running")
            yield history
    except (GeneratorExit, KeyboardInterrupt) as stopped:
        net.activity_noise = 0.0
        # A run that was left hanging is closed when the interpreter ends, and torch cannot be asked any more.
        if history.status == "running" and not sys.is_finalizing():
            if isinstance(stopped, GeneratorExit):  # it comes between two steps
                checkpoint.keep(due=True)
            history.end("stopped", "interrupted")
            _add_row(history, rule, data, losses, angles)
        raise
    finally:
        _give_back(net, optimizer, rates)


def _set_rates(optimizer, rates, settings, history):
    """Each group's learning rate for the next step; where `train` made the optimiser, groups keep their proportions."""
    scale = factor(settings.schedule, history.steps / history.planned, history.samples)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if settings.lr is not None:
            first, now = settings.lr.at(0), settings.lr.at(history.samples)
            rate = now * (rate / first) if isinstance(settings.optimizer, str) and first and rate != first else now
        group["lr"] = scale * rate


def _give_back(net, optimizer, rates):
    """What a run borrows: noise inside the network, the rates of an optimiser, which a second run may take up."""
    net.activity_noise = 0.0
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _look_for_the_end(history, loss, row_due):
    last = history.is_over
    # Seldom, because asking a GPU whether a number is finite means waiting for it.
    if (history.steps % 20 == 0 or row_due or last) and not torch.isfinite(loss):
        history.end("diverged", "the loss is no longer a finite number; try a smaller learning rate")
    elif last:
        history.end("done", "as planned")


def _step(rule, x, y, optimizer, estimates):
    """One step of the rule: its loss, NaN when it meets numbers that are not finite.

    estimates: a list to fill with what `.grad` holds when the optimiser is first called (a step may call it often,
    and some optimisers write into `.grad`), or None.
    """

    def keep_first(*_):
        if not estimates:
            estimates.append(gradients(rule.net))

    hook = None if estimates is None else optimizer.register_step_pre_hook(keep_first)
    try:
        loss = rule.step(x, y, optimizer)
    except NotFinite:
        return x.new_tensor(math.nan)
    finally:
        if hook:
            hook.remove()
            keep_first()  # for a step that does without the optimiser
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        raise ValueError(f"{type(rule).__name__} returned {loss!r}; backward and step return the loss, a 0-d tensor")
    return loss.detach()


def _set_knobs(rule, settings, samples):
    for name, schedule in (settings.knobs or {}).items():
        setattr(rule, name, schedule.at(samples))


@torch.no_grad()
def evaluate(rule, x, y, batch_size=2_500):
    """Accuracy in [0, 1] of `rule.predict` on x (n, inputs), y (n,) labels."""
    return (scores(rule, x, batch_size).argmax(1) == y).sum().item() / len(y)


def scores(rule, x, batch_size=2_500):
    """`rule.predict` of many x (n, inputs), in parts: (n, classes)."""
    return torch.cat([rule.predict(part) for part in x.split(batch_size)])


@torch.no_grad()
def _add_row(history, rule, data, losses, angles):
    if history.rows and history.rows[-1]["samples"] == history.samples:
        return
    guesses = scores(rule, data.x_val)
    row = {
        "epoch": history.samples / len(data.x_train),
        "samples": history.samples,
        "seconds": history.seconds,
        "train_loss": torch.stack(losses).mean().item() if losses else float("nan"),
        "train_accuracy": evaluate(rule, data.x_train[:TRAINING_IMAGES], data.y_train[:TRAINING_IMAGES]),
        "val_loss": rule.net.loss(guesses, data.y_val).item() if rule.loss_name == "loss" else math.nan,
        "val_accuracy": (guesses.argmax(1) == data.y_val).sum().item() / len(data.y_val),
    }
    if angles:
        row |= {f"angle_{l}": sum(layer) / len(layer) for l, layer in enumerate(zip(*angles, strict=True), 1)}
        row["probe_seconds"] = history.probe_seconds
    history.rows.append(row)
    losses.clear()
    angles.clear()


def _probe(history, measure, *arguments):
    """measure(*arguments), its time booked as the cost of probing."""
    begin = time.perf_counter()
    result = measure(*arguments)
    history.probe_seconds += time.perf_counter() - begin
    return result


def _first_angles(rule, data, batch_size):
    """Angles of an estimate before any step, made without leaving a trace."""
    x, y = data.x_train[:batch_size], data.y_train[:batch_size]
    with no_trace(rule):
        rule.backward(x, y)
        return layer_angles(rule.net, gradients(rule.net), rule.reference_gradient(x, y))


def make_optimizer(rule, optimizer, lr, momentum=0.9):
    """The torch optimiser "sgd" or "adam" for a rule, lr a number or Schedule; an instance is handed back."""
    if not isinstance(optimizer, str):
        return optimizer
    first = Schedule.of(lr, "lr").at(0)
    # The fused optimisers pass over the weights once instead of four times; not every device has them.
    shared = {"params": rule.parameter_groups(first), "lr": first}
    shared["fused"] = rule.net.weights[0].device.type in ("cpu", "cuda")
    return torch.optim.SGD(momentum=momentum, **shared) if optimizer == "sgd" else torch.optim.Adam(**shared)
