"""Drawings of lesson 02 that no cell of it makes."""

import math

import torch
from matplotlib.figure import Figure

import course_utils as cu
from course_utils import plots


def clouds():
    """Bias and variance, as a cloud of estimates around the tip of the true gradient."""
    figure = Figure(figsize=(9.6, 2.7), layout="constrained")
    generator = torch.Generator().manual_seed(2)
    cases = {"exact": (0.0, 0.0), "biased": (0.6, 0.0), "noisy": (0.0, 0.35), "biased and noisy": (0.6, 0.35)}
    for ax, (name, (bias, noise)) in zip(figure.subplots(1, 4), cases.items(), strict=True):
        mean = torch.tensor([1.0 - 0.4 * bias, 0.5 - bias])
        draws = mean + noise * torch.randn(60, 2, generator=generator)
        ax.plot(*draws.T, "o", color=plots.BLUE, markersize=3, alpha=0.6, label="one draw of the estimate")
        ax.annotate("", (1.0, 0.5), (0, 0), arrowprops={"arrowstyle": "-|>", "color": plots.BLACK, "linewidth": 1.8})
        ax.plot(*mean, "D", color=plots.RED, markersize=6, zorder=3, label="mean of the draws")
        ax.text(0.38, 0.34, "g", ha="right", fontsize=14)
        ax.set(xlim=(-0.2, 2.1), ylim=(-1.0, 1.6), aspect="equal", title=name)
        ax.axis("off")
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def chance():
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
        ax.hist(sample, bins=30, density=True, color=plots.SKY, label=f"{len(sample):,} random angles")
        shown = (angle > 90 - width) & (angle < 90 + width)
        exact = density / torch.trapezoid(density, angle)
        ax.plot(angle[shown], exact[shown], color=plots.BLACK, label="exact density")
        band = f"chance band, 90° ± {90 - low:.3g}°"
        ax.axvspan(low, high, color=plots.GREY, alpha=0.3, linewidth=0, label=band, zorder=0)
        ax.set(
            xlim=(90 - width, 90 + width),
            ylim=(0, 1.8 * exact.max()),
            xlabel="angle (°)",
            ylabel="density (1/°)",
            title=f"{d:,} dimensions",
        )
        plots.dress(ax)
    return figure


def averaging():
    """How far off the mean of n draws is, at four sizes of noise: lesson 02's second slider."""
    figure = Figure(figsize=(9.6, 5.4), layout="constrained")
    d, counts = 1_000, torch.logspace(0, 3, 80).long().unique()
    gradient, sideways = torch.zeros(2, d)
    gradient[0], sideways[1] = 1, 1
    for ax, degrees in zip(figure.subplots(2, 2).flat, (45, 75, 84, 88), strict=True):
        v = math.tan(math.radians(degrees)) ** 2
        noise = math.sqrt(v / d) * torch.randn(1_000, d, generator=torch.Generator().manual_seed(0))
        for bias, color, line in ((0, plots.BLUE, "-"), (0.5, plots.RED, "--")):
            means = (gradient + bias * sideways + noise).cumsum(0)[counts - 1] / counts[:, None]
            angle = torch.rad2deg(torch.arccos(means @ gradient / means.norm(dim=1)))
            ax.semilogx(counts, angle, line, color=color, label=f"bias {bias}" if bias else "unbiased")
            ax.semilogx(counts, torch.rad2deg(torch.atan((bias**2 + v / counts) ** 0.5)), ":", color=plots.BLACK)
        ax.axvline(max(1, v), color=plots.GREY, linestyle="-.", label=f"n = variance = {v:.3g}")
        ax.set(ylim=(0, 92), xlabel="draws averaged", ylabel="angle of the mean (°)", title=f"each draw {degrees}° off")
        plots.dress(ax)
    return figure
