"""One training loop for every rule: `steps` runs it, `train` and the playground drive it."""

import math
import sys
import time
from functools import partial

import torch

from course_utils.checkpoints import NOT_KEPT, Checkpoint
from course_utils.checks import NotFinite, let_in
from course_utils.device import stream
from course_utils.doors import check_rule, first_step
from course_utils.evaluation import add_row, evaluate, first_angles, probe, scores
from course_utils.history import History
from course_utils.metrics import estimate_of, layer_angles, reference_of
from course_utils.safely import drive
from course_utils.settings import Schedule, Settings

__all__ = ["evaluate", "make_optimizer", "scores", "steps", "train"]


def train(rule, data, *, progress=True, checkpoint=None, **settings):
    """Train `rule` on `data` with a progress bar; returns the run's `History`.

    epochs=5: how often to see the training set, fractions allowed.
    lr: a number or a `Schedule`, [(samples, value), …]; None takes `rule.lr` (for an optimiser instance: its own).
    batch_size=128. optimizer: "sgd" (with momentum=0.9), "adam", or any torch optimiser instance.
    schedule: a factor on lr, "one_cycle" (up over the first tenth, then a cosine down to 0), "constant",
    "exponential" (down to 1 %) or [(samples, factor), …]. "constant" without an lr leaves an optimiser's own rates
    alone, for a scheduler of torch that steps in its `register_step_post_hook`.
    input_noise=0.0, activity_noise=0.0: std of Gaussian noise on pixels, on hidden pre-activations; like lr.
    knobs: {name of one of the rule's `live_knobs`: like lr}. seed=0: of the batches' order and the noise.
    eval_every, probe_every: in samples. Evaluation defaults to once an epoch, probes (the angle of `.grad` to the
    rule's `reference_gradient` of the same batch, by default the true one) to never. stop_after: end after that many
    samples, with the schedule of all epochs. metrics: {name: f(rule, x, y)}, numbers of your own, of the validation
    data: a column of the history each. Where data.y_train holds values (n, outputs), for loss="squared_error",
    accuracies are NaN. checkpoint: a file that `resume` goes on from, whatever happens.
    ValueError for anything out of range. Interrupting the kernel returns the history so far. A run whose loss becomes
    NaN or infinite ends with status "diverged" and says so.
    """
    file = NOT_KEPT if checkpoint is None else Checkpoint(checkpoint, rule, data)
    return drive(rule, steps(rule, data, Settings(**settings), file), progress)


def steps(rule, data, settings, file=NOT_KEPT):
    """Generator behind `train`: yields the run's `History` before the first and after every step. Closing it stops."""
    check_rule(rule)
    settings = settings.ready(rule, data)
    optimizer = make_optimizer(rule, settings.optimizer, settings.lr, settings.momentum)
    alone = settings.lr is None and settings.schedule == "constant"  # the rates are the optimiser's own business
    rates = [] if alone else [group["lr"] for group in optimizer.param_groups]
    try:
        yield from _steps(rule, data, settings, optimizer, rates, file)
    finally:
        _give_back(rule.net, optimizer, rates)  # again: the first time an interrupt may have come in between


def _steps(rule, data, settings, optimizer, rates, file):
    net, images = rule.net, len(data.x_train)
    history = History(settings, images)
    losses: list[torch.Tensor] = []
    angles: list[list[float]] = []
    noise = stream("training noise", settings.seed, data.x_train.device)
    noise_seeds = stream("activity noise", settings.seed)
    kept = {"history": history, "optimizer": optimizer, "rates": rates, "losses": losses, "angles": angles}
    file.begin(**kept, noise=noise, noise_seeds=noise_seeds)
    batches = _batches(data, settings, history, noise)
    if not history.rows:
        _set_knobs(rule, settings, 0)
        if settings.probe_every:
            angles.append(probe(history, first_angles, history, rule, data))
        add_row(history, rule, data, losses, angles)
    file.keep(due=True)  # or the first step would be the first to hear that this is not possible
    try:
        yield history
        while history.status == "running":
            begin, probed = time.perf_counter(), history.probe_seconds
            x, y = next(batches)
            let_in(net, x, y)  # `ready` has looked at all of them
            _set_rates(optimizer, rates, settings, history)
            _set_knobs(rule, settings, history.samples)
            probe_due = history.passes(settings.probe_every, len(x))
            reference = probe(history, reference_of, rule, x, y) if probe_due else None
            net.activity_noise = settings.activity_noise.at(history.samples)
            net.noise_seed = int(torch.randint(2**31, (), generator=noise_seeds))
            estimates: list[list[torch.Tensor]] = []
            step = _step if history.steps else partial(first_step, _step, history, bool(rates))
            losses.append(step(rule, x, y, optimizer, estimates if probe_due else None))
            net.activity_noise = 0.0
            torch.clear_autocast_cache()  # under autocast torch would go on with the weights from before the step
            if probe_due:
                angles.append(probe(history, layer_angles, rule, estimates[0], reference))
            row_due = history.passes(settings.eval_every or images, len(x))
            if row_due and x.device.type != "cpu":
                torch.accelerator.synchronize()  # it works behind Python's back; the clock of a row waits for it
            history.samples, history.steps = history.samples + len(x), history.steps + 1
            history.seconds += time.perf_counter() - begin - (history.probe_seconds - probed)
            _look_for_the_end(history, losses[-1], row_due)
            if history.status == "done" and history.steps < history.planned and not row_due:
                file.keep(due=True)  # it pauses, with a row that the whole run has not
                file = NOT_KEPT
            if row_due or history.status != "running":
                add_row(history, rule, data, losses, angles)
            file.keep(due=row_due or history.status != "running")
            yield history
    except (GeneratorExit, KeyboardInterrupt) as stopped:
        net.activity_noise = 0.0
        # A run that was left hanging is closed when the interpreter ends, and torch cannot be asked any more.
        if history.status == "running" and not sys.is_finalizing():
            if isinstance(stopped, GeneratorExit):  # it comes between two steps
                file.keep(due=True)
            history.end("stopped", "interrupted")
            add_row(history, rule, data, losses, angles)
        raise
    finally:
        _give_back(net, optimizer, rates)


def _give_back(net, optimizer, rates):
    """What a run borrows: noise inside the network, and the rates, whose last, often 0, would ruin a second run."""
    net.activity_noise = 0.0
    for group, rate in zip(optimizer.param_groups, rates, strict=False):  # none to set: no rates
        group["lr"] = rate


def _batches(data, settings, history, noise):
    """Batches (x, y) for ever, epoch after epoch in a new order, with the noise that x has at history.samples."""
    device, done = data.x_train.device, history.steps  # those of a run that goes on are passed over
    in_order = stream("order", settings.seed)  # on the CPU: the same batches on every device
    while True:
        for batch in torch.randperm(history.images, generator=in_order).to(device).split(settings.batch_size):
            if done > 0:
                done -= 1
                continue
            x, y = data.x_train.index_select(0, batch), data.y_train.index_select(0, batch)
            if std := settings.input_noise.at(history.samples):
                x += std * torch.randn(x.shape, generator=noise, device=device, dtype=x.dtype)
            yield x, y


def _set_rates(optimizer, rates, settings, history):
    """Each group's learning rate for the next step; where `train` made the optimiser, groups keep their proportions."""
    factor = _factor(settings.schedule, history.steps / history.planned, history.samples)
    for group, rate in zip(optimizer.param_groups, rates, strict=False):  # none to set: no rates
        if settings.lr is not None:
            first, now = settings.lr.at(0), settings.lr.at(history.samples)
            rate = now * (rate / first) if isinstance(settings.optimizer, str) and first and rate != first else now
        group["lr"] = factor * rate


def _look_for_the_end(history, loss, row_due):
    # Seldom, because asking a GPU whether a number is finite means waiting for it.
    if (history.steps % 20 == 0 or row_due or history.is_over) and not torch.isfinite(loss):
        history.end("diverged", "the loss is no longer a finite number; try a smaller learning rate")
    elif history.is_over:
        history.end("done", "as planned")


def _step(rule, x, y, optimizer, estimates):
    """One step of the rule: its loss, NaN when it meets numbers that are not finite.

    estimates: a list to fill with what `.grad` holds when the optimiser is first called (a step may call it often,
    and some optimisers write into `.grad`), or None.
    """

    def keep_first(*_):
        if not estimates:
            estimates.append(estimate_of(rule))

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


def _factor(schedule, progress, samples):
    if schedule == "constant":
        return 1.0
    if schedule == "exponential":
        return 0.01**progress
    if schedule == "one_cycle":
        up, down = 0.05 + 0.95 * progress / 0.1, 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
        return up if progress < 0.1 else down
    return schedule.at(samples)


def make_optimizer(rule, optimizer, lr, momentum=0.9):
    """The torch optimiser "sgd" or "adam" for a rule, lr a number or Schedule; an instance is handed back."""
    if not isinstance(optimizer, str):
        return optimizer
    first = Schedule.of(lr, "lr").at(0)
    # The fused optimisers pass over the weights once instead of four times; not every device has them.
    shared = {"params": rule.parameter_groups(first), "lr": first}
    shared["fused"] = rule.net.weights[0].device.type in ("cpu", "cuda")
    return torch.optim.SGD(momentum=momentum, **shared) if optimizer == "sgd" else torch.optim.Adam(**shared)
