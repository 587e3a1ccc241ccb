"""The lessons as a learner meets them: folded solutions pass their checks, typical wrong answers do not."""

import contextlib
import io
import re
from pathlib import Path

import jupytext
import pytest
import torch

import course_utils as cu

LESSONS = sorted((Path(__file__).parent.parent / "lessons").glob("[0-9]*.md"))
SOLUTION = re.compile(r'<details class="solution">.*?```python\n(.*?)```.*?</details>', re.S)
FUNCTION = re.compile(r"^def (my_\w+)", re.M)

# What learners write instead: (in the solution, instead of it). The general mistakes below come on top.
SLIPS = {
    "my_best_blend": [
        ("bias1 - bias2", "bias1 + bias2"),
        ("(bias1.dot(between) + variance1)", "(bias2.dot(between) + variance2)"),
        ("(bias1.dot(between) + variance1)", "variance1"),
        ("between.dot(between) + ", ""),
        ("variance1 + variance2", "variance1"),
        ("between.dot(between)", "bias1.dot(bias1) + bias2.dot(bias2)"),
        ("bias1.dot(between) + variance1", "bias1.dot(bias1) + variance1"),
    ],
    "my_interval": [
        ("d.std()", "(hybrid.var() + parent.var()) ** 0.5"),
        (" / len(d) ** 0.5", ""),
        ("len(d) ** 0.5", "len(d)"),
        ("d.std()", "d.std(correction=0)"),
        ("d.std()", "d.var()"),
        ("hybrid - parent", "parent - hybrid"),
        ("t * error", "1.96 * error"),
        ("d.mean() - t * error, d.mean() + t * error", "d.mean() + t * error, d.mean() - t * error"),
    ],
    "my_estimate": [
        ("(2 * std)", "std"),
        ("(2 * std)", "(2 * std**2)"),
        ("(plus - minus)", "(minus - plus)"),
        ("(plus - minus)", "plus"),
        (".mean(0)", ".sum(0)"),
        ("(slopes[:, None, None] * psi).mean(0)", "slopes.mean() * psi.mean(0)"),
        ("slopes[:, None, None] * psi", "slopes * psi"),  # stops with an error
    ],
    "my_rms_cosine": [
        ("(cosines**2).mean().sqrt()", "cosines.mean()"),
        ("(cosines**2).mean().sqrt()", "cosines.abs().mean()"),
        (".mean().sqrt()", ".mean()"),
        (".mean().sqrt()", ".sum().sqrt()"),
        ("norm(dim=1)", "norm()"),
        (" * gradient.norm()", ""),
    ],
    "my_output_update": [
        (" / len(error)", ""),
        ("error.T @ activity", "activity.T @ error"),
        ("error.T @ activity", "-error.T @ activity"),
        ("len(error)", "error.shape[1]"),
        ("error.T @ activity", "error @ activity"),  # stops with an error
    ],
    "my_angle": [
        ("torch.rad2deg(torch.arccos(cosine))", "torch.arccos(cosine)"),  # radians
        ("torch.rad2deg(torch.arccos(cosine))", "cosine"),
        ("arccos", "arcsin"),
        (" / (update.norm() * reference.norm())", ""),
        ("(update.norm() * reference.norm())", "(update.norm() * update.norm())"),
        ("(update * reference).sum()", "(update * reference).mean()"),
        ("(update * reference).sum()", "(update @ reference).sum()"),  # stops with an error
    ],
    "my_variance": [
        ("draws.var(0)", "draws.var(0, correction=0)"),
        ("draws.var(0)", "draws.std(0)"),
        ("draws.var(0)", "draws.var(1)"),
        (".sum()", ".mean()"),
        ("gradient.dot(gradient)", "gradient.norm()"),
        (" / gradient.dot(gradient)", ""),
        ("draws.var(0).sum()", "(draws - gradient).pow(2).mean(0).sum()"),  # the bias is in it
    ],
    "my_squared_bias": [
        (" - variance", ""),
        (" / len(draws)", ""),
        (" / gradient.dot(gradient)", ""),
        ("draws.mean(0)", "draws.mean(1, keepdim=True)"),
        (" - variance", " + variance"),
        ("sum() - variance)", "sum() - variance).clamp(min=0)"),  # never below zero
        ("gradient.dot(gradient)", "gradient.norm()"),
        ("draws.mean(0) - gradient", "draws - gradient"),
    ],
    "my_hidden_delta": [
        (" * (1 - h * h)", ""),
        ("(1 - h * h)", "h * (1 - h)"),
        ("(1 - h * h)", "(1 - a * a)"),
        ("(delta_above @ weights)", "-(delta_above @ weights)"),
        ("torch.tanh(a)", "a"),
        ("delta_above @ weights", "delta_above @ weights.T"),  # stops with an error
    ],
    "my_output_delta": [
        (" / len(a)", ""),
        ("torch.sigmoid(a) - y", "y - torch.sigmoid(a)"),
        ("torch.sigmoid(a)", "a"),
        ("(torch.sigmoid(a) - y)", "(torch.sigmoid(a) - y) * torch.sigmoid(a) * (1 - torch.sigmoid(a))"),
        ("(torch.sigmoid(a) - y)", "(torch.sigmoid(a) - y) ** 2"),
    ],
    "my_tilt": [
        (" - (random * weights).sum() / (weights * weights).sum() * weights", ""),
        (" / (weights * weights).sum()", ""),
        ("across * weights.norm() / across.norm()", "across"),
        ("torch.cos(theta) * weights + torch.sin", "torch.sin(theta) * weights + torch.cos"),
        ("torch.sin(theta)", "torch.sin(theta * torch.pi / 180)"),
        ("+ torch.sin(theta)", "- torch.sin(theta)"),
    ],
    "my_node_update": [
        (" / std**2", " / std"),
        (" / std**2", ""),
        (" / len(h)", ""),
        ("change[:, None] * noise", "change.mean() * noise"),
        ("change[:, None] * noise", "noise"),
        ("delta.T @ h", "h.T @ delta"),
        ("change[:, None]", "-change[:, None]"),
        ("change[:, None]", "change"),  # stops with an error
    ],
    "my_shared_mean": [
        ("torch.outer(delta.mean(0), h.mean(0))", "delta.T @ h / len(h)"),
        ("torch.outer(delta.mean(0), h.mean(0))", "torch.outer(h.mean(0), delta.mean(0))"),
        ("h.mean(0)", "h.sum(0)"),
        ("delta.mean(0)", "delta.sum(0)"),
        ("delta.mean(0)", "delta[0]"),
        ("delta.mean(0)", "delta.mean(1)"),
    ],
    "my_hidden_update": [
        (" * (1 - h * h)", ""),
        (" / len(x)", ""),
        ("delta.T @ x", "x.T @ delta"),
        ("(1 - h * h)", "h * (1 - h)"),
        ("(error @ feedback)", "-(error @ feedback)"),
        ("torch.tanh(x @ weights.T)", "x @ weights.T"),
        ("len(x)", "x.shape[1]"),
        ("torch.tanh(x @ weights.T)", "torch.tanh(x @ weights)"),  # stops with an error
    ],
    "my_direct_delta": [
        (" * (1 - h * h)", ""),
        (" / len(error)", ""),
        ("torch.tanh(a)", "a"),
        ("(error @ feedback)", "-(error @ feedback)"),
        ("(1 - h * h)", "(1 - h)"),
        ("len(error)", "error.shape[1]"),
        ("(error @ feedback)", "(error @ feedback.T)"),  # stops with an error
    ],
    "my_target_update": [
        ("-(target", "(target"),
        (" * (1 - h * h)", ""),
        (" / len(x)", ""),
        ("delta.T @ x", "x.T @ delta"),
        ("torch.tanh(x @ weights.T)", "x @ weights.T"),
        ("len(x)", "x.shape[1]"),
    ],
    "my_share_helped": [
        (".sum(1)", ".sum(0)"),
        ("(agreement > 0)", "(agreement < 0)"),
        (".mean()", ".sum()"),
        ("(error @ feedback)", "(error @ weights)"),
        ("(agreement > 0).to(error.dtype)", "agreement"),
    ],
    "my_feedback_step": [
        ("(1 - decay) * (feedback - lr * change)", "(1 - decay) * feedback - lr * change"),
        ("(1 - decay) * (feedback - lr * change)", "(1 - lr * decay) * feedback - lr * change"),
        ("(feedback - lr * change)", "(feedback + lr * change)"),
        ("(1 - decay)", "decay"),
        ("(1 - decay) * ", ""),
        (" / len(h)", ""),
        ("error.T @ h", "h.T @ error"),  # stops with an error
        ("lr * change", "change"),
        ("len(h)", "h.shape[1]"),
    ],
    "my_feedback": [
        ("-weights, weights", "weights, -weights"),
        ("torch.copysign(drawn, arrived)", "drawn * arrived.sign()"),
        ("torch.copysign(drawn, arrived)", "drawn.abs() * arrived"),
        ("torch.copysign(drawn, arrived)", "torch.copysign(arrived, drawn)"),
        ("torch.copysign(drawn, arrived)", "arrived.sign()"),
        ("torch.copysign(drawn, arrived)", "drawn.abs()"),
        ("drawn, arrived", "drawn, weights"),
        ("drawn, arrived", "drawn.T, arrived"),  # stops with an error
    ],
    "my_changes": [
        (".mean()", ".sum()"),
        (" < 0", " > 0"),
        ("before * after < 0", "before != after"),
        ("before * after < 0", "before < 0"),
        ("before * after < 0", "before - after < 0"),
        (".mean()", ".mean(0)"),
        (".to(before.dtype).mean()", ".float().mean()"),
    ],
    "my_state_step": [
        (" * (1 - torch.tanh(v) ** 2)", ""),
        ("(1 - torch.tanh(v) ** 2)", "(1 - v**2)"),
        ("v + rate", "v - rate"),
        ("pull - (v - prediction)", "pull + (v - prediction)"),
        ("pull - (v - prediction)", "pull"),
        ("rate * (pull", "(pull"),
        ("rate * (pull - (v - prediction))", "rate * (pull - (v - prediction)) / len(v)"),
        ("error_above @ weights_above", "error_above @ weights_above.T"),  # stops with an error
    ],
    "my_weight_gradient": [
        ("torch.tanh(v_below)", "v_below"),
        ("-error.T", "error.T"),
        (" / len(error)", ""),
        ("error.T @ torch.tanh(v_below)", "torch.tanh(v_below).T @ error"),
        ("len(error)", "error.shape[1]"),
        ("torch.tanh(v_below)", "(1 - torch.tanh(v_below) ** 2)"),
    ],
    "my_state_move": [
        ("precision * error", "error"),
        ("slope * (message @ weights)", "message @ weights"),
        ("1 - torch.tanh(state) ** 2", "1 - state**2"),
        ("state + rate", "state - rate"),
        ("- precision * error", "+ precision * error"),
        ("state + rate * (", "rate * ("),
        ("message @ weights", "message @ weights.T"),  # stops with an error
        ("torch.tanh(state) ** 2", "torch.tanh(error) ** 2"),
    ],
    "my_synapse_estimate": [
        ("@ sent / len(state)", "@ below / len(state)"),
        ("sent = torch.tanh(below)", "sent = below"),
        ("-precision * error", "-error"),
        ("-precision", "precision"),
        (" / len(state)", ""),
        (" - bias", ""),
        ("error.T @ sent", "sent.T @ error"),
        ("len(state)", "state.shape[1]"),
    ],
    "my_pepita_update": [
        ("x + error", "x - error"),
        ("difference.T @ again", "difference.T @ x"),
        ("difference.T @ again", "again.T @ difference"),
        ("difference.T @ again", "-difference.T @ again"),
        (" / len(x)", ""),
        ("len(x)", "x.shape[1]"),
        ("torch.tanh(x @ weights.T) - torch.tanh(again @ weights.T)", "(x - again) @ weights.T"),  # no f
        ("error @ feedback.T", "error @ feedback"),  # stops with an error
    ],
    "my_hidden_feedback": [
        ("-(weights", "(weights"),
        (").T", ")"),
        ("weights @ feedback", "weights.T @ feedback"),  # stops with an error
        ("(weights @ feedback)", "(weights @ feedback / len(weights))"),
    ],
    "my_decay_for": [
        ("1 - 0.5 ** (1 / half_life)", "0.5 ** (1 / half_life)"),
        ("1 - 0.5 ** (1 / half_life)", "0.6931471805599453 / half_life"),
        ("(1 / half_life)", "half_life"),
        ("0.5", "2"),
    ],
    "my_mirror_step": [
        (" / len(noise)", ""),
        ("len(noise)", "noise.shape[1]"),
        ("(1 - decay) * ", ""),
        ("(1 - decay)", "decay"),
        ("decay * heard.T", "heard.T"),
        ("+ decay", "- decay"),
        ("noise @ weights.T", "noise @ feedback.T"),
        ("noise @ weights.T", "torch.tanh(noise @ weights.T)"),
        ("heard.T @ noise", "noise.T @ heard"),  # stops with an error
    ],
    "my_decay_at_angle": [
        ("(inputs + 1)", "inputs"),
        ("torch.tan(angle) ** 2", "torch.tan(angle)"),
        ("torch.tan(angle)", "torch.sin(angle)"),
        ("torch.tan(angle)", "torch.tan(angle * torch.pi / 180)"),
        ("(patterns + examples)", "patterns"),
        ("2 * examples", "examples"),
        ("(inputs + 1) / torch.tan(angle) ** 2", "(inputs + 1) * torch.tan(angle) ** 2"),
    ],
    "my_pull": [
        (" * (1 - h * h)", ""),
        ("h = torch.tanh(v)", "h = v"),
        (" - alpha * e1 - beta * g1", " + alpha * e1 + beta * g1"),
        (" - alpha * e1 - beta * g1", ""),
        (" - beta * g1", ""),
        (" - alpha * e1", ""),
        ("beta * g0 @ V1", "alpha * g0 @ V1"),
        ("alpha * e2 @ W2 + beta", "beta * e2 @ W2 + alpha"),
        ("(1 - h * h)", "(1 - v * v)"),
        ("x - h @ V1.T", "x + h @ V1.T"),  # as a public program has it
        ("beta * g0 @ V1", "beta * g0 @ W1.T"),  # what a single set of synapses would send
        ("e2 @ W2", "e2 @ W2.T"),  # stops with an error
    ],
    "my_generative_gradient": [
        (" / len(x)", ""),
        ("-beta *", "beta *"),
        ("-beta *", "-"),
        ("h = torch.tanh(v)", "h = v"),
        ("(x - h @ V1.T)", "x"),
        ("(x - h @ V1.T)", "(x + h @ V1.T)"),
        ("(x - h @ V1.T).T @ h", "h.T @ (x - h @ V1.T)"),
        ("len(x)", "x.shape[1]"),
        ("(x - h @ V1.T).T @ h", "(x - h @ V1.T).T @ (h * (1 - h * h))"),
    ],
    "my_normalised": [
        (".sqrt()", ""),
        ("h.square().mean(1, keepdim=True)", "h.square().sum(1, keepdim=True)"),
        ("h.square().mean(1, keepdim=True)", "h.square().mean()"),
        ("h.square().mean(1, keepdim=True)", "h.square().mean(0, keepdim=True)"),
        ("h.square()", "h.abs()"),
        (", keepdim=True", ""),  # stops with an error
    ],
    "my_local_gradient": [
        (" / h.shape[1]", ""),
        (" / len(came_in)", ""),
        ("-sign * (1", "sign * (1"),
        ("(1 - torch.sigmoid(margin))", "torch.sigmoid(margin)"),
        ("(1 - torch.sigmoid(margin))", "torch.sigmoid(margin) * (1 - torch.sigmoid(margin))"),
        ("(push * 2 * h", "(push * h"),
        (".mean(1, keepdim=True)", ".sum(1, keepdim=True)"),
        ("- threshold", "+ threshold"),
        ("torch.relu(came_in @ weights.T)", "came_in @ weights.T"),
    ],
    "my_critical_rate": [
        ("(weights + draws + 1)", "(weights + draws)"),
        ("(weights + draws + 1) / draws", "weights + 2"),
        ("(weights + draws + 1) / draws", "draws / (weights + draws + 1)"),
        (".sum(1).mean()", ".mean()"),
        (".sum(1).mean()", ".sum()"),
        (".sum(1).mean()", ".sum(0).mean()"),
        ("x**2", "x.abs()"),
        ("return 2 /", "return 1 /"),
        (".sum(1).mean()", ".sum(1).mean().sqrt()"),
    ],
    "my_forgetting": [
        (" / (before - chance)", ""),
        ("(before - chance)", "before"),
        ("(before - after)", "(after - chance)"),
        ("(before - after)", "(after - before)"),
        ("(before - chance)", "(after - chance)"),
        ("(before - chance)", "(1 - chance)"),
        ("(before - after) / (before - chance)", "((before - after) / (before - chance)).mean()"),
    ],
    "my_rank_correlation": [
        ("return (v[:, None] > v).to(v.dtype).sum(1) + (v[:, None] == v).to(v.dtype).sum(1) / 2", "return v"),
        ("return (v[:, None] > v).to(v.dtype).sum(1) + ", "return v.argsort().to(v.dtype) + 0 * "),
        ("ranks(a) - ranks(a).mean(), ranks(b) - ranks(b).mean()", "ranks(a), ranks(b)"),
        (" / (r.norm() * s.norm())", ""),
        ("(r.norm() * s.norm())", "len(a)"),
        ("ranks(b) - ranks(b).mean()", "ranks(-b) - ranks(b).mean()"),
        (".to(v.dtype)", ""),
    ],
    "my_matched_step": [
        (" / step.norm()", ""),
        ("step.norm()", "step.norm(dim=1, keepdim=True)"),
        ("step.norm()", "step.norm() ** 2"),
        ("step.norm()", "before.norm()"),
        ("after - before", "before - after"),
        ("before + length", "after + length"),
        ("before + length", "length"),
        ("step.norm()", "step.abs().sum()"),
    ],
}


def exercises():
    """(lesson, function name, stub, check cell, solution) for each exercise of each lesson."""
    for path in LESSONS:
        cells = jupytext.read(path).cells
        solutions = {FUNCTION.search(code).group(1): code for code in SOLUTION.findall(path.read_text())}
        stubs = [cell.source for cell in cells if "exercise" in cell.metadata.get("tags", [])]
        for stub in stubs:
            name = FUNCTION.search(stub).group(1)
            (check,) = [
                cell.source
                for cell in cells
                if "check" in cell.metadata.get("tags", []) and re.search(rf"check_update\(\s*{name}", cell.source)
            ]
            yield path.stem, name, stub, check, solutions[name]


EXERCISES = list(exercises())
NAMES = [f"{lesson}:{name}" for lesson, name, *_ in EXERCISES]


def tried(answer, check):
    """What the check cell prints for an answer, and the namespace afterwards."""
    namespace = {"torch": torch, "cu": cu}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(answer, namespace)
        exec(check, namespace)
    return printed.getvalue(), namespace


@pytest.mark.parametrize(("lesson", "name", "stub", "check", "solution"), EXERCISES, ids=NAMES)
def test_the_folded_solution_passes_and_is_used(lesson, name, stub, check, solution):
    printed, namespace = tried(solution, check)
    assert printed.startswith("✓"), printed
    assert "your rule" in [value for value in namespace.values() if isinstance(value, str)]


@pytest.mark.parametrize(("lesson", "name", "stub", "check", "solution"), EXERCISES, ids=NAMES)
def test_the_stub_left_undone_says_so_and_the_reference_is_used(lesson, name, stub, check, solution):
    printed, namespace = tried(stub, check)
    assert printed.startswith("NOT DONE"), printed
    assert "reference" in [value for value in namespace.values() if isinstance(value, str)]


@pytest.mark.parametrize(("lesson", "name", "stub", "check", "solution"), EXERCISES, ids=NAMES)
def test_typical_wrong_answers_are_refused(lesson, name, stub, check, solution):
    slips = [(old, solution.replace(old, new)) for old, new in SLIPS[name]]
    for wrap in ("-({})", "2 * ({})", "({}) + 1e-3", "({}).unsqueeze(0)", "print({})", "float(({}).sum())"):
        returned = re.compile(r"return (.*)")
        slips.append((wrap, returned.sub(lambda match, wrap=wrap: "return " + wrap.format(match[1]), solution)))
    for what, wrong in slips:
        assert wrong != solution, f"the slip {what!r} changes nothing"
        printed, _ = tried(wrong, check)
        assert "✓" not in printed, f"{what!r} was accepted: {printed}"


def test_a_wrong_answer_is_told_what_is_wrong():
    lesson, name, stub, check, solution = next(e for e in EXERCISES if e[1] == "my_hidden_update")
    for old, new, said in (
        (" * (1 - h * h)", "", "f′ is missing"),
        (" / len(x)", "", "1/batch"),
        ("delta.T @ x", "x.T @ delta", "transpose"),
        ("(error @ feedback)", "-(error @ feedback)", "sign"),
    ):
        printed, _ = tried(solution.replace(old, new), check)
        assert said in printed, printed
