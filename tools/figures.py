"""Draw the figures that lessons show as files: `python tools/figures.py` writes lessons/figures/*.svg."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import torch
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch

import course_utils as cu
from course_utils import runs, disturb, worlds
from course_utils.rules.feedback_alignment import FeedbackAlignment
from course_utils.rules.node_perturbation import NodePerturbation

FIGURES = Path(__file__).parent.parent / "lessons" / "figures"


def play_00():
    """The first two playgrounds at four learning rates, for a reader without a kernel."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    titles = "Backprop: a large rate ends it", "Feedback alignment: it bears all four"
    for ax, rule_class, title in zip(axes, (cu.rules.Backprop, FeedbackAlignment), titles, strict=True):
        for (color, line), lr in zip(cu.plots.LAYER_STYLES, (0.01, 0.1, 1.0, 3.0), strict=False):
            settings = dict(epochs=1, lr=lr, schedule="constant", eval_every=2_750)
            frame = cu.train(rule_class(cu.MLP([784, 128, 10])), data, **settings, progress=False).frame
            ax.plot(frame.samples, 100 * frame.val_accuracy, color=color, linestyle=line, label=f"learning rate {lr:g}")
        ax.set(xlabel=cu.plots.UNITS["samples"], ylabel=cu.plots.UNITS["val_accuracy"], ylim=(0, 100), title=title)
        cu.plots.dress(ax)
    return figure


def circuit_01():
    """Backprop beside tilted feedback: the way back is a copy, or a copy turned by an angle."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    backs = {
        "Backprop": "back through W₂ᵀ:\na second synapse that\nmust copy the first",
        "Tilted feedback": "back through B₂ᵀ:\nW₂ turned by an angle θ\ntowards a random matrix",
    }
    for ax, (title, back) in zip(figure.subplots(1, 2), backs.items(), strict=True):
        cu.plots.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, back], feedback_fixed=False, title=title)
    return figure


def play_01():
    """The feedback angle moved while training runs, for a reader without a kernel."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    axes = figure.subplots(1, 2)
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    moves, end = [(0, 0.0), (25_000, 60.0), (45_000, 100.0), (90_000, 0.0)], 110_000
    settings = dict(epochs=end / 55_000, lr=0.03, schedule="constant", knobs={"feedback_angle": moves})
    for (color, line), redraw in zip(cu.plots.LAYER_STYLES, (False, True), strict=False):
        rule = cu.rules.TiltedFeedback(cu.MLP([784, 128, 10]), redraw=redraw)
        frame = cu.train(rule, data, **settings, eval_every=2_000, probe_every=500, progress=False).frame
        label = "R redrawn every step" if redraw else "always the same R"
        for ax, column, factor in zip(axes, ("val_accuracy", "angle_1"), (100, 1), strict=True):
            ax.plot(frame.samples, factor * frame[column], color=color, linestyle=line, label=label)
    axes[0].set(xlabel=cu.plots.UNITS["samples"], ylabel=cu.plots.UNITS["val_accuracy"], ylim=(0, 112))
    axes[1].set(xlabel=cu.plots.UNITS["samples"], ylabel="hidden layer's angle to the gradient (°)", ylim=(-5, 130))
    for ax in axes:
        for (begin, theta), until in zip(moves, [*(begin for begin, _ in moves[1:]), end], strict=True):
            ax.axvline(begin, color=cu.plots.GREY, linewidth=0.7, linestyle=":")
            ax.text((begin + until) / 2, ax.get_ylim()[1], f"θ = {theta:.0f}°", ha="center", va="top", fontsize="small")
        cu.plots.dress(ax)
    axes[0].legend(loc="lower left", frameon=False, fontsize="small")
    axes[1].get_legend().remove()
    return figure


def clouds_02():
    """Bias and variance, as a cloud of estimates around the tip of the true gradient."""
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    generator = torch.Generator().manual_seed(2)
    cases = {"exact": (0.0, 0.0), "biased": (0.6, 0.0), "noisy": (0.0, 0.35), "biased and noisy": (0.6, 0.35)}
    for ax, (name, (bias, noise)) in zip(figure.subplots(1, 4), cases.items(), strict=True):
        mean = torch.tensor([1.0 - 0.4 * bias, 0.5 - bias])
        draws = mean + noise * torch.randn(60, 2, generator=generator)
        ax.plot(*draws.T, "o", color=cu.plots.BLUE, markersize=3, alpha=0.6, label="one draw of the estimate")
        ax.annotate("", (1.0, 0.5), (0, 0), arrowprops={"arrowstyle": "-|>", "color": cu.plots.BLACK, "linewidth": 1.8})
        ax.plot(*mean, "D", color=cu.plots.RED, markersize=6, zorder=3, label="mean of the draws")
        ax.text(0.38, 0.34, "g", ha="right", fontsize=14)
        ax.set(xlim=(-0.2, 2.1), ylim=(-1.0, 1.6), aspect="equal", title=name)
        ax.axis("off")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def chance_02():
    """Angles between random arrows in four dimensions, with the chance band: lesson 02's first slider."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    for ax, d in zip(figure.subplots(2, 2).flat, (2, 10, 1_000, 203_530), strict=True):
        generator = torch.Generator().manual_seed(d)
        one = torch.randn(d, generator=generator)
        many = torch.randn(max(200, min(2_000, 2_000_000 // d)), d, generator=generator)
        sample = torch.rad2deg(torch.arccos(many @ one / (many.norm(dim=1) * one.norm())))
        angle = torch.linspace(0, 180, 40_001).double()
        density = torch.sin(torch.deg2rad(angle)).clamp(min=1e-300).log().mul(d - 2).exp()
        low, high = cu.metrics.chance_band(d)
        width = min(90, 2 * (90 - low))
        ax.hist(sample, bins=30, density=True, color=cu.plots.SKY, label=f"{len(sample):,} random angles")
        shown = (angle > 90 - width) & (angle < 90 + width)
        exact = density / torch.trapezoid(density, angle)
        ax.plot(angle[shown], exact[shown], color=cu.plots.BLACK, label="exact density")
        band = f"chance band, 90° ± {90 - low:.3g}°"
        ax.axvspan(low, high, color=cu.plots.GREY, alpha=0.3, linewidth=0, label=band, zorder=0)
        ax.set(
            xlim=(90 - width, 90 + width),
            ylim=(0, 1.8 * exact.max()),
            xlabel="angle (°)",
            ylabel="density (1/°)",
            title=f"{d:,} dimensions",
        )
        cu.plots.dress(ax)
    return figure


def averaging_02():
    """How far off the mean of n draws is, at four sizes of noise: lesson 02's second slider."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    d, counts = 1_000, torch.logspace(0, 3, 80).long().unique()
    gradient, sideways = torch.zeros(2, d)
    gradient[0], sideways[1] = 1, 1
    for ax, degrees in zip(figure.subplots(2, 2).flat, (45, 75, 84, 88), strict=True):
        v = math.tan(math.radians(degrees)) ** 2
        noise = math.sqrt(v / d) * torch.randn(1_000, d, generator=torch.Generator().manual_seed(0))
        for bias, color, line in ((0, cu.plots.BLUE, "-"), (0.5, cu.plots.RED, "--")):
            means = (gradient + bias * sideways + noise).cumsum(0)[counts - 1] / counts[:, None]
            angle = torch.rad2deg(torch.arccos(means @ gradient / means.norm(dim=1)))
            ax.semilogx(counts, angle, line, color=color, label=f"bias {bias}" if bias else "unbiased")
            ax.semilogx(counts, torch.rad2deg(torch.atan((bias**2 + v / counts) ** 0.5)), ":", color=cu.plots.BLACK)
        ax.axvline(max(1, v), color=cu.plots.GREY, linestyle="-.", label=f"n = variance = {v:.3g}")
        ax.set(ylim=(0, 92), xlabel="draws averaged", ylabel="angle of the mean (°)", title=f"each draw {degrees}° off")
        cu.plots.dress(ax)
    return figure


def circuit_03():
    """Backprop beside weight perturbation: an error for every unit, or one number for every synapse."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, back = ["x", "h₁", "ŷ"], "back through W₂ᵀ:\nan error for\nevery unit"
    cu.plots.circuit(left, names, ["W₁", "W₂"], [None, back], False, title="Backprop")
    moved = ["W₁ ± σψ₁", "W₂ ± σψ₂"]
    cu.plots.circuit(right, names, moved, [None, None], error="ΔL", title="Weight perturbation")
    for end in (1.0, 3.0):
        look = {"arrowstyle": "-|>", "color": cu.plots.RED, "linestyle": "--", "linewidth": 1.8}
        right.annotate("", (end, -0.12), (3.66, -1.3), arrowprops=look)
    right.text(1.5, -1.1, "one number\nto every synapse", color=cu.plots.RED, ha="right", va="center", fontsize=11)
    return figure


def accuracy_and_angle(runs, accuracies, angles=(0, 100), layer="hidden"):
    """Train each of {label: (rule, arguments of train)}; accuracy and the first layer's angle, within these limits."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    for (color, line), (label, (rule, settings)) in zip(cu.plots.LAYER_STYLES, runs.items(), strict=False):
        often = dict(schedule="constant", eval_every=2_750, probe_every=550)
        frame = cu.train(rule, data, **settings, **often, progress=False).frame
        for ax, column, factor in zip(axes, ("val_accuracy", "angle_1"), (100, 1), strict=True):
            ax.plot(frame.samples, factor * frame[column], color=color, linestyle=line, label=label)
    axes[0].set(xlabel=cu.plots.UNITS["samples"], ylabel=cu.plots.UNITS["val_accuracy"], ylim=accuracies)
    axes[1].set(xlabel=cu.plots.UNITS["samples"], ylabel=f"{layer} layer's angle to the gradient (°)", ylim=angles)
    cu.plots.draw_chance_band(axes[1], rule.net.weights[0].numel() + len(rule.net.biases[0]))
    for ax in axes:
        cu.plots.dress(ax)
    return figure


def play_03():
    """The playground at four sizes of the jiggle, for a reader without a kernel."""
    runs = {}
    for std in (1e-10, 1e-7, 1e-3, 0.3):
        rule = cu.rules.WeightPerturbation(cu.MLP([784, 32, 10]), perturbation_std=std, draws=10)
        runs[f"σ = {std:g}"] = rule, dict(epochs=1, lr=3e-3, optimizer="adam")
    return accuracy_and_angle(runs, (0, 100), angles=(86, 93))


def circuit_04():
    """Noise on every synapse beside noise on every unit; the same single number goes to everybody."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    titles = "Weight perturbation: shake every synapse", "Node perturbation: shake every unit"
    for ax, title, by_unit in zip(figure.subplots(1, 2), titles, (False, True), strict=True):
        cu.plots.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, None], error="ΔL", title=title)
        for x, name in ((2, "ξ₁"), (4, "ξ₂")) if by_unit else ((1.35, "ψ₁"), (3.35, "ψ₂")):
            tip = (x, 0.4) if by_unit else (x, 0.02)
            look = {"arrowstyle": "-|>", "color": cu.plots.GREEN, "linewidth": 1.8}
            ax.annotate(name, tip, (x, 1.0), ha="center", color=cu.plots.GREEN, fontsize=13, arrowprops=look)
            back = {"arrowstyle": "-|>", "color": cu.plots.RED, "linestyle": "--", "linewidth": 1.4}
            begin, end = ((4.25, -1.0), (4.25, -0.3)) if x == 4 else ((3.64, -1.3), (x, -0.4 if by_unit else -0.04))
            ax.annotate("", end, begin, arrowprops=back)
        ax.text(0.2, -1.3, "one number,\nthe same for all", color=cu.plots.RED, fontsize=11, va="center")
        ax.set(ylim=(-1.85, 1.3))
    return figure


def play_04():
    """The playground with 1, 4, 16 and 64 tries, for a reader without a kernel."""
    runs = {}
    for draws in (1, 4, 16, 64):
        rule = NodePerturbation(cu.MLP([784, 128, 10]), draws=draws)
        runs[f"{draws} tries" if draws > 1 else "1 try"] = rule, dict(epochs=1, lr=0.01)
    return accuracy_and_angle(runs, (0, 100))


def circuit_06():
    """Backprop beside feedback alignment: the same forward path, another way back."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    forward = ["W₁", "W₂"]
    cu.plots.circuit(
        left,
        ["x", "h₁", "ŷ"],
        forward,
        [None, "back through W₂ᵀ:\na second synapse that\nmust copy the first"],
        False,
        title="Backprop",
    )
    cu.plots.circuit(
        right,
        ["x", "h₁", "ŷ"],
        forward,
        [None, "back through B₂:\nrandom synapses that\nnever change"],
        title="Feedback alignment",
    )
    return figure


def play_06():
    """The playground at four feedback scales, for a reader without a kernel."""
    runs = {}
    for scale in (0.1, 1.0, 3.0, 10.0):
        rule = FeedbackAlignment(cu.MLP([784, 128, 10]), feedback_scale=scale)
        runs[f"feedback scale {scale:g}"] = rule, dict(epochs=1, lr=0.03)
    return accuracy_and_angle(runs, (80, 100))


def circuit_07():
    """Three ways to tell two hidden layers: down the chain, straight from the output, straight from the label."""
    figure = Figure(figsize=(11.4, 2.9), layout="constrained")
    axes = figure.subplots(1, 3)
    titles = ("Feedback alignment", "Direct feedback alignment", "Direct random target projection")
    for ax, title, sent in zip(axes, titles, ("e", "e", "y*"), strict=True):
        cu.plots.circuit(ax, ["x", "h₁", "h₂", "ŷ"], ["W₁", "W₂", "W₃"], [None] * 3, error=sent, title=title)
        if sent == "y*":
            ax.patches[-4].remove()  # from ŷ to the round node: the label asks nobody
        if title == "Feedback alignment":
            sends = [((5.64, -1.3), (4.1, -1.3), 0.0), ((3.9, -1.3), (2.1, -1.3), 0.0)]
            sends += [((4, -1.3), (4, -0.42), 0.0), ((2, -1.3), (2, -0.42), 0.0)]
            names = [(4.85, -1.4, "B₃"), (3, -1.4, "B₂")]
        else:
            sends = [((5.67, -1.2), (4, -0.42), -0.12), ((5.67, -1.38), (2, -0.42), -0.22)]
            names = [(4.55, -1.02, "B₂"), (2.55, -1.3, "B₁")]
        for begin, end, bend in sends:
            arrow = FancyArrowPatch(
                begin,
                end,
                connectionstyle=f"arc3,rad={bend}",
                arrowstyle="-|>",
                mutation_scale=14,
                color=cu.plots.RED,
                linestyle="--",
                linewidth=1.8,
                shrinkA=0,
                shrinkB=0,
            )
            ax.add_patch(arrow)
        for x, y, name in names:
            ax.text(x, y, name, color=cu.plots.RED, fontsize=11, ha="center", va="top")
    return figure


def play_07():
    """The playground of direct feedback alignment at four feedback scales, for a reader without a kernel."""
    runs = {}
    for scale in (0.1, 1.0, 3.0, 10.0):
        rule = cu.rules.DirectFeedbackAlignment(cu.MLP([784, 128, 128, 10], activation="tanh"), feedback_scale=scale)
        runs[f"feedback scale {scale:g}"] = rule, dict(epochs=1, lr=0.03)
    return accuracy_and_angle(runs, (70, 100), layer="first")


def circuit_template():
    """The circuit of lessons/_template.md."""
    figure = Figure(figsize=(5.2, 3.1), layout="constrained")
    back = [None, "back through W₂ᵀ:\nsome messages\nare lost"]
    cu.plots.circuit(figure.subplots(), ["x", "h₁", "ŷ"], ["W₁", "W₂"], back, False, title="Lost messages")
    return figure


def circuit_08():
    """Three ways back: the weights themselves, random ones, and any sizes with the right signs."""
    figure = Figure(figsize=(11.4, 2.7), layout="constrained")
    backs = {
        "Backprop": "through W₂ᵀ:\n32 bits of each weight\nare copied",
        "Sign symmetry": "through M₂ ⊙ sign(W₂):\n1 bit of each weight\nis copied",
        "Feedback alignment": "through B₂:\nrandom, nothing\nis copied",
    }
    for ax, (title, back) in zip(figure.subplots(1, 3), backs.items(), strict=True):
        fixed = title == "Feedback alignment"
        cu.plots.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, back], feedback_fixed=fixed, title=title)
    return figure


def play_08():
    """The playground at three shares of wrong signs and with a share moved while training runs."""
    shares = {"0": 0.0, "0.2": 0.2, "0.5": 0.5, "0.5, then 0": [(0, 0.5), (27_500, 0.0)]}
    runs = {}
    for name, share in shares.items():
        rule = cu.rules.SignSymmetry(cu.MLP([784, 128, 10]))
        runs[f"flipped {name}"] = rule, dict(epochs=1, lr=0.03, knobs={"flipped": share})
    return accuracy_and_angle(runs, (70, 100))


def circuit_09():
    """Feedback alignment beside Kolen–Pollack: feedback that stands still, and feedback that changes alike."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    backs = {
        "Feedback alignment": "back through B₂:\nrandom synapses that\nnever change",
        "Kolen–Pollack": "back through B₂:\nthe same change as W₂,\nand both fade alike",
    }
    for ax, (title, back) in zip(figure.subplots(1, 2), backs.items(), strict=True):
        fixed = title == "Feedback alignment"
        cu.plots.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, back], feedback_fixed=fixed, title=title)
    return figure


def play_09():
    """The playground at three decays and with a decay moved while training runs, for a reader without a kernel."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    decays = {"0.00001": 1e-5, "0.001": 1e-3, "0.01": 1e-2, "0.01, then 0.00001": [(0, 1e-2), (27_500, 1e-5)]}
    for (color, line), (name, decay) in zip(cu.plots.LAYER_STYLES, decays.items(), strict=False):
        rule = cu.rules.KolenPollack(cu.MLP([784, 128, 10]))
        settings = dict(epochs=2, lr=0.1, schedule="constant", eval_every=5_500, probe_every=1_100)
        frame = cu.train(rule, data, **settings, knobs={"decay": decay}, progress=False).frame
        for ax, column, factor in zip(axes, ("val_accuracy", "angle_1"), (100, 1), strict=True):
            ax.plot(frame.samples, factor * frame[column], color=color, linestyle=line, label=f"decay {name}")
    axes[0].set(xlabel=cu.plots.UNITS["samples"], ylabel=cu.plots.UNITS["val_accuracy"], ylim=(85, 100))
    axes[1].set(xlabel=cu.plots.UNITS["samples"], ylabel="hidden layer's angle to the gradient (°)", ylim=(0, 100))
    for ax in axes:
        cu.plots.dress(ax)
    return figure


def circuit_10():
    """The two modes of the weight mirror: awake the error goes back over B, asleep noise shows B what W is."""
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    awake, asleep = figure.subplots(1, 2)
    back = [None, "back through B₂:\nas in feedback\nalignment"]
    cu.plots.circuit(awake, ["x", "h₁", "ŷ"], ["W₁", "W₂"], back, title="Awake: an image, an error")
    back = [None, "B₂ learns:\ny at one end,\nξ at the other"]
    cu.plots.circuit(asleep, ["", "ξ", "y"], ["", "W₂"], back, error="y", title="Asleep: noise, and no error")
    asleep.patches[0].remove()  # no image, and no way from it
    for patch in [p for p in asleep.patches if isinstance(p, FancyArrowPatch)][1:2]:
        patch.remove()
    return figure


def play_10():
    """The playground at three decays and without a mirror, for a reader without a kernel."""
    runs = {}
    settings = {"no mirror": dict(mirror_steps=0)} | {f"decay {d:g}": dict(decay=d) for d in (0.002, 0.02, 0.5)}
    for name, knobs in settings.items():
        runs[name] = cu.rules.WeightMirror(cu.MLP([784, 128, 10]), **knobs), dict(epochs=1, lr=0.1)
    return accuracy_and_angle(runs, (80, 100))


def circuit_15():
    """Backprop beside predictive coding: a pass back, or errors of each layer's own that push states."""
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, weights = ["x", "h₁", "h₂", "ŷ"], ["W₁", "W₂", "W₃"]
    cu.plots.circuit(left, names, weights, [None] * 3, title="Backprop: a pass up, then a pass down")
    back = {"arrowstyle": "-|>", "color": cu.plots.RED, "linestyle": "--", "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    left.annotate("", (4.1, -1.3), (5.64, -1.3), arrowprops=back)
    left.annotate("", (2.1, -1.3), (3.9, -1.3), arrowprops=back)
    for x, name in ((4, "W₃ᵀ"), (2, "W₂ᵀ")):
        left.annotate("", (x, -0.42), (x, -1.3), arrowprops=back)
        left.text(x + 0.9, -1.4, name, color=cu.plots.RED, fontsize=11, ha="center", va="top")
    ahead = {"arrowstyle": "-|>", "color": cu.plots.BLUE, "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    both = {"arrowstyle": "<|-|>", "color": cu.plots.BLACK, "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0}
    for i, name in enumerate(["x", "v₁", "v₂", "y"]):
        right.add_patch(Circle((2.4 * i, 0), 0.38, facecolor="white", edgecolor="black", linewidth=1.5))
        right.text(2.4 * i, 0, name, ha="center", va="center", fontsize=13)
        if i == 0:
            continue
        right.add_patch(Circle((2.4 * i, -1.5), 0.34, facecolor="#FBE9DF", edgecolor=cu.plots.RED, linewidth=1.5))
        right.text(2.4 * i, -1.5, f"ε{'₁₂₃'[i - 1]}", ha="center", va="center", fontsize=13)
        right.annotate("", (2.4 * i, -1.12), (2.4 * i, -0.42), arrowprops=both)
        right.annotate("", (2.4 * i - 0.36, -1.5), (2.4 * i - 2.1, -0.3), arrowprops=ahead)
        right.text(2.4 * i - 1.5, -1.12, weights[i - 1], color=cu.plots.BLUE, fontsize=12, ha="right")
        if i > 1:
            right.annotate("", (2.4 * i - 2.04, -0.12), (2.4 * i - 0.22, -1.2), arrowprops=back)
            right.text(2.4 * i - 0.95, -0.52, weights[i - 1] + "ᵀ", color=cu.plots.RED, fontsize=11, ha="left")
    right.set(
        xlim=(-0.6, 7.8), ylim=(-2.05, 0.75), aspect="equal", title="Predictive coding: errors between neighbours"
    )
    right.axis("off")
    return figure


def settling_15():
    """States, errors and energy of a small network at four moments of its settling: the lesson's slider."""
    data = cu.load_dataset("mnist", limit=20_000)
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    rule = cu.rules.PredictiveCoding(cu.MLP([784, 64, 32, 10], activation="tanh"))
    cu.train(rule, data, epochs=1, progress=False)
    s, v, errors, energies = rule.settling(rule, data.x_val[:1], (data.y_val[:1] + 1) % 10), [], [], []
    for _ in range(101):
        v.append(s.v[2][0].tolist())
        errors.append([max(e.pow(2).mean().sqrt().item(), 1e-6) for e in s.e[1:]])
        energies.append([*(0.5 * e.pow(2).sum().item() for e in s.e[1:-1]), rule.net.loss(s.output, s.y).item()])
        s.sweep()
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.subplots(2, 4)
    for ax, at in zip(axes[0], (0, 2, 12, 100), strict=True):
        ax.bar(range(32), v[0], width=0.9, color=cu.plots.GREY, alpha=0.5, label="feed-forward")
        ax.plot(v[at], "D", markersize=3, color=cu.plots.BLUE, label="now")
        ax.set(ylim=(-4, 4), xlabel="unit of layer 2", title=f"after {at} sweeps")
    axes[0, 0].set_ylabel("state v")
    grid = axes[0, 0].get_gridspec()
    for ax in axes[1]:
        ax.remove()
    left, right = figure.add_subplot(grid[1, :2]), figure.add_subplot(grid[1, 2:])
    names = ["layer 1", "layer 2", "output"]
    for name, (color, line), column in zip(names, cu.plots.LAYER_STYLES, zip(*errors, strict=True), strict=False):
        left.semilogy(column, color=color, linestyle=line, label=name)
    left.set(xlabel="sweep", ylabel="error (rms over units)", ylim=(1e-4, 2))
    colors = [color for color, _ in cu.plots.LAYER_STYLES[:3]]
    right.stackplot(range(101), list(zip(*energies, strict=True)), colors=colors, alpha=0.6, labels=names)
    right.set(xlabel="sweep", ylabel="energy F")
    for ax in (*axes[0], left, right):
        cu.plots.dress(ax, legend=ax in (axes[0, 0], left, right))
    return figure


def play_15():
    """The playground settled, hardly settled, after one sweep, and shaken, for a reader without a kernel."""
    settings: dict[str, dict] = {
        "T = 12, γ = 0.2": {},
        "T = 20, γ = 0.01": {"inference_steps": 20, "inference_rate": 0.01},
        "T = 1, γ = 0.2": {"inference_steps": 1},
        "T = 12, γ = 0.2, noise 0.1": {"state_noise": 0.1},
    }
    runs = {}
    for label, knobs in settings.items():
        rule = cu.rules.PredictiveCoding(cu.MLP([784, 128, 128, 10]), **knobs)
        runs[label] = rule, dict(epochs=1, lr=0.1)
    return accuracy_and_angle(runs, (50, 100), layer="first")


def circuit_16():
    """Predictive coding beside its incremental form: who moves when, and what brings the errors down."""
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    titles = "Predictive coding: settle, then learn", "Incremental, learned feedback: both at every sweep"
    for ax, title, learned in zip(figure.subplots(1, 2), titles, (False, True), strict=True):
        cu.plots.circuit(ax, ["x", "v₁", "ŷ"], ["W₁", "W₂"], [None, None], error="ξ₂", title=title)
        ax.add_patch(Circle((2, -1.3), 0.34, facecolor="#FBE9DF", edgecolor=cu.plots.RED, linewidth=1.5))
        ax.text(2, -1.3, "ξ₁", ha="center", va="center", fontsize=13)
        both = {"arrowstyle": "<|-|>", "color": cu.plots.RED, "linewidth": 1.8}
        ax.annotate("", (2, -0.96), (2, -0.38), arrowprops=both)
        line = "-" if learned else ":"
        down = {"arrowstyle": "-|>", "color": cu.plots.RED, "linestyle": line, "linewidth": 1.8}
        ax.annotate("", (2.3, -0.27), (3.7, -1.14), arrowprops=down)
        words = "B₂: learned,\nnever a copy" if learned else "W₂ᵀ:\na copy"
        ax.text(2.85, -0.98, words, color=cu.plots.RED, fontsize=11, ha="center", va="top")
        moves = "W₁, W₂ and B₂ move after every sweep" if learned else "W₁, W₂ move once, after the last sweep"
        ax.text(2, 0.95, moves, color=cu.plots.BLUE, fontsize=11, ha="center")
        ax.set(ylim=(-1.85, 1.3))
    return figure


def play_16():
    """The playground at three waits and with noisy states, for a reader without a kernel."""
    runs = {}
    for wait, noise in ((1, 0.0), (4, 0.0), (8, 0.0), (1, 0.3)):
        rule = cu.rules.IncrementalPredictiveCoding(cu.MLP([784, 128, 10]), wait=wait, state_noise=noise)
        name = f"wait {wait}, state noise {noise:g}" if noise else f"wait {wait}"
        runs[name] = rule, dict(epochs=0.5, lr=0.01)
    return accuracy_and_angle(runs, (0, 100))


def circuit_17():
    """Predictive coding beside both streams: each layer predicted once, or from both sides."""
    figure = Figure(figsize=(9.6, 2.2), layout="constrained")
    titles = "Predictive coding", "Bidirectional predictive coding"
    for ax, title in zip(figure.subplots(1, 2), titles, strict=True):
        names = ["x", "v₁", "v₂", "y"]
        cu.plots.circuit(ax, names, ["W₁", "W₂", "W₃"], [None] * 3, error="", title=title)
        for patch in ax.patches[4:6]:  # no error node of the output's own: every layer has errors here
            patch.set_visible(False)
        both = title.startswith("Bi")
        for l in range(1, 4):
            ax.text(2 * l, 0.5, f"e{'₀₁₂₃'[l]}", color=cu.plots.BLUE, ha="center", va="bottom", fontsize=11)
        for l in range(3 if both else 0):
            ends = (2 * l + 1.75, -0.32), (2 * l + 0.25, -0.32)
            arrow = FancyArrowPatch(*ends, arrowstyle="-|>", connectionstyle="arc3,rad=-0.35", mutation_scale=14)
            arrow.set(color=cu.plots.RED, linewidth=1.8)
            arrow.shrinkA = arrow.shrinkB = 0
            ax.add_patch(arrow)
            ax.text(2 * l + 1, -0.72, f"V{'₁₂₃'[l]}", color=cu.plots.RED, ha="center", va="top", fontsize=12)
            ax.text(2 * l, -0.5, f"g{'₀₁₂'[l]}", color=cu.plots.RED, ha="center", va="top", fontsize=11)
        ax.set(ylim=(-1.1, 0.95))
    return figure


def play_17():
    """The playground at four weights of the generative stream, for a reader without a kernel."""
    runs = {}
    for beta in (1e-4, 3e-3, 0.1, 1.0):
        net = cu.MLP([784, 128, 10], loss="squared_error")
        rule = cu.rules.BidirectionalPredictiveCoding(net, generative=beta, inference_rate=0.03)
        runs[f"generative {beta:g}"] = rule, dict(epochs=1, optimizer="adam")
    return accuracy_and_angle(runs, (0, 100))


def clamp_17():
    """Drawings for labels on the way from one digit to another: lesson 17's first slider."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    data = cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    rule = cu.rules.BidirectionalPredictiveCoding(cu.MLP([784, 256, 256, 10], loss="squared_error"))
    cu.train(rule, data, epochs=2, lr=2e-3, optimizer="adam", progress=False)
    for ax, (first, second) in zip(figure.subplots(3, 1), ((3, 8), (4, 9), (1, 7)), strict=True):
        shares = torch.linspace(0, 1, 5)
        labels = torch.zeros(5, 10)
        labels[:, first], labels[:, second] = 1 - shares, shares
        words = [f"{1 - share:.0%} {first}, {share:.0%} {second}" for share in shares.tolist()]
        cu.plots.images(ax, rule.generate(labels), titles=words)
    return figure


def circuit_22():
    """Backprop beside PEPITA: an error that goes back through the network, and one that goes in at its front."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    left, right = figure.subplots(1, 2)
    names, ahead, back = ["x", "h₁", "ŷ"], ["W₁", "W₂"], "back through W₂ᵀ:\na second synapse that\nmust copy the first"
    cu.plots.circuit(left, names, ahead, [None, back], False, title="Backprop")
    cu.plots.circuit(right, ["x + F e", *names[1:]], ahead, [None, None], title="PEPITA: forward, and forward again")
    right.texts[0].set_fontsize(9)
    look = {"arrowstyle": "-|>", "color": cu.plots.RED, "linestyle": "--", "linewidth": 1.8}
    right.annotate("", (0, -0.42), (3.64, -1.3), arrowprops={**look, "connectionstyle": "angle,angleA=0,angleB=90"})
    right.text(
        1.8,
        -1.2,
        "through F to the input:\nrandom synapses that never change",
        color=cu.plots.RED,
        fontsize=11,
        ha="center",
    )
    return figure


def play_22():
    """The playground at four feedback scales, for a reader without a kernel."""
    runs = {}
    for scale in (0.005, 0.05, 0.2, 1.0):
        rule = cu.rules.Pepita(cu.MLP([784, 128, 10]), feedback_scale=scale)
        runs[f"feedback scale {scale:g}"] = rule, dict(epochs=1, lr=0.1)
    return accuracy_and_angle(runs, (0, 100))


def circuit_21():
    """Forward-Forward's two passes: every layer turns its own goodness up or down, and nothing leads back."""
    figure = Figure(figsize=(9.6, 2.9), layout="constrained")
    passes = {
        "a true pair: every layer gets louder": ("label 5", "goodness ▲", cu.plots.BLUE),
        "a false pair: every layer gets quieter": ("label 3", "goodness ▼", cu.plots.RED),
    }
    for ax, (title, (label, goodness, color)) in zip(figure.subplots(1, 2), passes.items(), strict=True):
        for i, name in enumerate(("x", "h₁", "h₂")):
            ax.text(2.4 * i, 0, name, ha="center", va="center", fontsize=13, bbox=dict(boxstyle="circle", fc="white"))
            if i:
                arrow: dict = dict(arrowstyle="-|>", mutation_scale=14, color=cu.plots.BLUE, linewidth=1.5)
                ax.add_patch(FancyArrowPatch((2.4 * i - 2, 0), (2.4 * i - 0.4, 0), **arrow))
                ax.text(2.4 * i - 1.2, 0.12, f"W{'₁₂'[i - 1]}", ha="center", color=cu.plots.BLUE, fontsize=12)
                loop: dict = dict(arrowstyle="-|>", mutation_scale=12, color=color, linestyle="--", linewidth=1.5)
                loop["connectionstyle"] = "arc3,rad=0.45"
                ax.add_patch(FancyArrowPatch((2.4 * i, 0.42), (2.4 * i - 1.15, 0.42), **loop))
                ax.text(2.4 * i - 0.5, 0.95, goodness, ha="center", color=color, fontsize=11)
        ax.text(0, -0.55, f"an image of a 5\nwith the {label}", ha="center", va="top", fontsize=11, color=color)
        ax.text(3.6, -0.55, "nothing leads back", ha="center", va="top", fontsize=11, color=cu.plots.GREY)
        ax.set(xlim=(-1.1, 5.5), ylim=(-1.4, 1.3), title=title)
        ax.axis("off")
    return figure


def play_21():
    """The playground of Forward-Forward at three thresholds and with one that moves, for a reader without a kernel."""
    figure = Figure(figsize=(7.2, 3.8), layout="constrained")
    ax, data = figure.subplots(), cu.load_dataset("mnist")
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    thresholds = {"0.1": 0.1, "2": 2.0, "30": 30.0, "30, then 2": [(0, 30.0), (27_500, 2.0)]}
    for (color, line), (name, threshold) in zip(cu.plots.LAYER_STYLES, thresholds.items(), strict=False):
        rule = cu.rules.ForwardForward(cu.MLP([784, 128, 128, 10]))
        settings = dict(epochs=1, lr=0.003, optimizer="adam", schedule="constant", eval_every=5_500)
        frame = cu.train(rule, data, **settings, knobs={"threshold": threshold}, progress=False).frame
        ax.plot(frame.samples, 100 * frame.val_accuracy, color=color, linestyle=line, label=f"threshold {name}")
    ax.set(xlabel=cu.plots.UNITS["samples"], ylabel=cu.plots.UNITS["val_accuracy"], ylim=(0, 100))
    cu.plots.dress(ax)
    return figure


def circuit_30():
    """Two ways to join two rules: their messages are added up, or the one teaches the other's feedback."""
    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    titles = "Mixing: two messages are added up", "Teaching: one message corrects the other"
    for ax, title in zip(figure.subplots(1, 2), titles, strict=True):
        mixing = title.startswith("Mixing")
        cu.plots.circuit(ax, ["x", "h₁", "ŷ"], ["W₁", "W₂"], [None, "B₂" if mixing else "B₂, taught"], title=title)
        ax.text(2, 0.75, "shaken by ξ", ha="center", color=cu.plots.GREEN, fontsize=11)
        look = {"arrowstyle": "-|>", "color": cu.plots.GREEN, "linestyle": ":", "linewidth": 1.8}
        if mixing:
            ends = (3.64, -1.4), (1.72, -0.3)
            words = "ΔL, one number: how much\nthe shaking changed the loss"
        else:
            ends = (3.64, -1.4), (2.95, -0.92)
            words = "ΔL ξ: what B₂\nshould have said"
        ax.annotate("", ends[1], ends[0], arrowprops={**look, "connectionstyle": "arc3,rad=-0.35"})
        ax.text(1.5, -1.45, words, ha="center", va="top", color=cu.plots.GREEN, fontsize=11)
        ax.set(ylim=(-2.3, 1.1))
    return figure


def play_30():
    """The playground's blend of node perturbation and feedback alignment, for a reader without a kernel."""
    runs = {}
    for blend in (0.0, 0.5, 0.9, 1.0):
        rule = cu.rules.Blend(cu.MLP([784, 128, 10]), blend=blend, first="NodePerturbation")
        runs[f"blend {blend:g}"] = rule, dict(epochs=1, lr=0.02)
    return accuracy_and_angle(runs, (0, 100))


def worlds_29():
    """One row of digits for each world."""
    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    data = cu.load_dataset("mnist", limit=10)
    if data.is_fallback:
        sys.exit("this figure shows MNIST, which could not be loaded")
    moved, noisy = disturb.permuted(data, 0), disturb.noisy_images(data, 0.4)
    slowly = [disturb.rotated(data, angle).x_train[i] for i, angle in enumerate(range(0, 91, 10))]
    order = data.y_train[:10].argsort()
    rows = {
        "0 to 4,\nthen 5 to 9": data.x_train[order],
        "the pixels in\nanother order": moved.x_train[:10],
        "turned\never further": torch.stack(slowly),
        "under noise": noisy.x_train[:10].clamp(0, 1),
        "one at a time": data.x_train[:1],
    }
    for ax, (name, images) in zip(figure.subplots(len(rows), 1), rows.items(), strict=True):
        blank = torch.zeros(10 - len(images), 784)
        cu.plots.images(ax, torch.cat([images, blank]))
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
        ax.spines[:].set_visible(False)
    return figure


def play_29():
    """Lesson 29's two sliders: four trained networks in a world that turns, and with noise on their weights."""
    stored, data = cu.stored_results(29), cu.load_dataset("mnist", limit=10_000)
    plain = stored[stored.dataset == "mnist in order"].groupby("rule").first()
    noisy = stored[(stored.dataset == "mnist, noise on weights") & (stored.noise == 0.8)].groupby("rule").test_accuracy
    able = (noisy.mean() / plain.val_accuracy)[plain.val_accuracy > 0.5].sort_values().index
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    axes = figure.subplots(1, 2)
    angles, shares = list(range(-90, 91, 10)), [0.0, 0.2, 0.4, 0.6, 0.8, 1.2, 1.6, 2.4, 3.2]
    worlds_seen = [disturb.rotated(replace(data, x_train=data.x_train[:1]), angle) for angle in angles]
    names = dict.fromkeys([able[-1], "Backprop", "FrozenHidden(Backprop)", able[0]])
    for name, (color, line) in zip(names, cu.plots.LAYER_STYLES, strict=False):
        settings = dict(epochs=2, batch_size=64, schedule="constant")
        life = worlds.Life(name, [784, 100, 100, 10], plain.lr[name], 0, **settings)
        assert list(life.learn(data))
        accuracies = [[cu.evaluate(life.rule, seen.x_val, seen.y_val) for seen in worlds_seen], []]
        for share in shares:
            with cu.metrics.no_trace(life.rule):
                disturb.shake_weights(life.rule.net, share)
                accuracies[1].append(cu.evaluate(life.rule, data.x_val, data.y_val))
        for ax, at, values in zip(axes, (angles, shares), accuracies, strict=True):
            label = life.rule.title if name in cu.rules.ALL else "Frozen hidden"
            ax.plot(at, [100 * value for value in values], color=color, linestyle=line, label=label)
    axes[0].set(
        xlabel="world turned by (°)", ylabel=cu.plots.UNITS["val_accuracy"], title="All are lost at a quarter turn"
    )
    axes[1].set(xlabel="noise on the weights (share of their spread)", title="Not all are lost under noise")
    for ax in axes:
        ax.set_ylim(0, 100)
        cu.plots.dress(ax, legend=ax is axes[1])


def race_28():
    """One network, one race; the families of rules take turns in the place of rule.backward."""
    figure = Figure(figsize=(9.6, 3.5))
    ax = figure.add_axes((0, 0, 1, 1))
    layers = {0.7: 5, 1.8: 4, 2.9: 4, 4.0: 3}  # x: circles
    for (x0, n0), (x1, n1) in zip(list(layers.items())[:-1], list(layers.items())[1:], strict=True):
        for i in range(n0):
            for j in range(n1):
                ends = [2.75 + 0.36 * (i - (n0 - 1) / 2), 2.75 + 0.36 * (j - (n1 - 1) / 2)]
                ax.plot([x0, x1], ends, color=cu.plots.BLUE, linewidth=0.5, alpha=0.5, zorder=1)
    for x, n in layers.items():
        for i in range(n):
            ax.add_patch(
                Circle((x, 2.75 + 0.36 * (i - (n - 1) / 2)), 0.13, facecolor="white", edgecolor=cu.plots.BLACK)
            )
    ax.text(2.35, 3.85, "the same network, the same images, the same optimiser", ha="center", fontsize=11)
    look = {"facecolor": "#FBE9DF", "edgecolor": cu.plots.RED, "linewidth": 1.5, "boxstyle": "round,pad=0.35"}
    ax.text(
        2.35, 1.4, "loss = rule.backward(x, y)", ha="center", va="center", fontsize=12, family="monospace", bbox=look
    )
    families = "backprop", "random\nfeedback", "copied\nfeedback", "try\nand see", "settle\nfirst", "forward\nonly"
    for i, (name, (color, _)) in enumerate(zip(families, cu.plots.LAYER_STYLES, strict=True)):
        box = {"facecolor": "white", "edgecolor": color, "linewidth": 1.5, "boxstyle": "round,pad=0.3"}
        ax.text(0.45 + 0.8 * i, 0.35, name, ha="center", va="center", fontsize=9, bbox=box)
        ax.plot([0.45 + 0.8 * i, 2.35], [0.64, 1.12], color=color, linewidth=1, linestyle="-" if i == 1 else ":")
    ax.add_patch(FancyArrowPatch((4.5, 2.4), (5.6, 2.4), arrowstyle="-|>", mutation_scale=18, color=cu.plots.BLACK))
    questions = (
        "How many images are right, over five seeds?",
        "At what price: images, seconds, operations, memory?",
        "How much hangs on the learning rate? On depth?",
        "Is it the length of the steps, or their direction?",
        "Does pointing at the gradient explain it?",
        "Does plausibility cost anything?",
    )
    for i, question in enumerate(questions):
        ax.text(5.75, 3.5 - 0.48 * i, question, va="center", fontsize=10.5)
    ax.set(xlim=(-0.05, 10.2), ylim=(0, 4.1))
    ax.axis("off")
    return figure


def table_28():
    """The stored table of lesson 28: every seed a dot, rules sorted, controls as lines."""
    stored = cu.stored_results(28)
    stored = stored[stored.sizes.isin(["784-128-128-10", "784-10"]) & ~stored.rule.str.startswith("MatchedSteps(")]
    wrong = stored.dropna(subset=["test_accuracy"]).assign(wrong=lambda frame: 100 - 100 * frame.test_accuracy)
    names = {}
    for rule, sizes in wrong[["rule", "sizes"]].drop_duplicates().itertuples(index=False):
        given = "" if rule.startswith("Frozen") else rule.partition("(")[2].rstrip(")")
        title = runs.make_rule(rule, [20, 5, 2], 0).title + (f", {given}" if given else "")
        names[rule, sizes] = "Softmax regression" if sizes == "784-10" else title
    wrong = wrong.assign(row=[names[key] for key in zip(wrong.rule, wrong.sizes, strict=True)])
    order = wrong.groupby("row").wrong.mean().sort_values(ascending=False)
    figure = Figure(figsize=(9.6, 6.2), layout="constrained")
    ax = figure.subplots()
    for y, row in enumerate(order.index):
        values = wrong[wrong.row == row].wrong
        look = {"color": cu.plots.style(row)["color"]}
        ax.plot([values.min(), values.max()], [y, y], linewidth=1, **look)
        ax.plot(values, [y] * len(values), "o", markersize=4, **look)
    for row, line in (
        ("Backprop", "-"),
        (names["FrozenHidden(Backprop)", "784-128-128-10"], ":"),
        ("Softmax regression", "-."),
    ):
        ax.axvline(order[row], color=cu.plots.GREY, linestyle=line, linewidth=1, label=row)
    ax.set_yticks(range(len(order)), order.index, fontsize="small")
    title = f"784-128-128-10, five epochs, Adam; each dot a seed; measured {stored.measured.max()}"
    ax.set(xscale="log", xlabel="test images wrong (%), log scale", title=title)
    ax.set_xticks([2, 3, 5, 10, 20, 50], ["2", "3", "5", "10", "20", "50"])
    ax.minorticks_off()
    ax.invert_xaxis()
    cu.plots.dress(ax)
    return figure


DRAWINGS = {
    "_template_circuit.svg": circuit_template,
    "00_play.svg": play_00,
    "01_circuit.svg": circuit_01,
    "01_play.svg": play_01,
    "02_clouds.svg": clouds_02,
    "02_chance.svg": chance_02,
    "02_averaging.svg": averaging_02,
    "03_circuit.svg": circuit_03,
    "03_play.svg": play_03,
    "04_circuit.svg": circuit_04,
    "04_play.svg": play_04,
    "06_circuit.svg": circuit_06,
    "06_play.svg": play_06,
    "07_circuit.svg": circuit_07,
    "07_play.svg": play_07,
    "08_circuit.svg": circuit_08,
    "08_play.svg": play_08,
    "09_circuit.svg": circuit_09,
    "09_play.svg": play_09,
    "10_circuit.svg": circuit_10,
    "10_play.svg": play_10,
    "15_circuit.svg": circuit_15,
    "15_settling.svg": settling_15,
    "15_play.svg": play_15,
    "16_circuit.svg": circuit_16,
    "16_play.svg": play_16,
    "17_circuit.svg": circuit_17,
    "17_play.svg": play_17,
    "17_clamp.svg": clamp_17,
    "22_circuit.svg": circuit_22,
    "22_play.svg": play_22,
    "21_circuit.svg": circuit_21,
    "21_play.svg": play_21,
    "30_circuit.svg": circuit_30,
    "30_play.svg": play_30,
    "29_worlds.svg": worlds_29,
    "29_play.svg": play_29,
    "28_race.svg": race_28,
    "28_table.svg": table_28,
}


def main(lessons):
    cu.setup(seed=0, device="cpu")
    FIGURES.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        if lessons and name.split("_")[0] not in lessons:
            continue
        cu.plots.save_svg(draw(), FIGURES / name)
        print(f"drew lessons/figures/{name}")


if __name__ == "__main__":
    main(sys.argv[1:])
