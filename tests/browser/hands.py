"""What a learner's hands do with a widget: press, move, wait for what should follow."""

import base64
import contextlib
import time

import pytest
from browser.pages import KERNEL_IDLE, LOOKS, SOON, shoot

playwright = pytest.importorskip("playwright.sync_api")

# Stop is to take half a second at most, which the printed number shows; a busy machine is given more.
STOP_LIMIT = 1.5


def status(lab):
    return lab.locator(".cu-status").inner_text()


def samples(lab):
    """How many training images the status line says have been seen."""
    return int(next(word for word in status(lab).split() if word[0].isdigit()).replace(",", ""))


def wait_until(condition, what, seconds=30.0):
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)  # to look at a page costs the kernel's time
    return time.monotonic() - begin


def press(lab, text, seconds=SOON / 1000):
    lab.get_by_role("button", name=text, exact=True).click(timeout=1000 * seconds)


def ended(lab):
    """Has the run ended? If not, press Stop; at the ends of the sliders it may diverge and end before the press."""
    if lab.get_by_role("button", name="Train", exact=True).is_enabled():
        return True
    with contextlib.suppress(playwright.TimeoutError):
        press(lab, "Stop", seconds=1)
    return False


def value(handle):
    """Where a slider stands; the attribute aria-valuenow is rounded to one digit."""
    return handle.get_attribute("aria-valuetext")


def move(page, handle, key):
    """Press a key on a slider's handle, and wait until it is where the key leads."""
    handle.scroll_into_view_if_needed()
    handle.focus()
    before = value(handle)
    page.keyboard.press(key)
    end = {"Home": "aria-valuemin", "End": "aria-valuemax"}.get(key)
    if end:
        wait_until(lambda: handle.get_attribute("aria-valuenow") == handle.get_attribute(end), key)
    else:
        wait_until(lambda: value(handle) != before, key)


def slow_down(page, lab):
    """As many hidden units as there may be: slow steps, so that a run does not end before it is stopped."""
    if lab.locator(".cu-hidden-units .noUi-handle").count():
        move(page, lab.locator(".cu-hidden-units .noUi-handle"), "End")


def play(page, lab, name):
    """Train, turn what acts at once while it trains, stop, ask for the code."""
    picture = lab.locator("img.cu-figure")
    shoot(page, f"{name}-before")
    slow_down(page, lab)
    before = picture.get_attribute("src")
    press(lab, "Train")
    first = wait_until(lambda: picture.get_attribute("src") != before, "a first picture")
    seen = samples(lab)
    wait_until(lambda: samples(lab) > seen, "samples grow")
    growing = picture.get_attribute("src")
    wait_until(lambda: picture.get_attribute("src") != growing, "the curve grows")
    shoot(page, f"{name}-training")

    live = lab.locator(".widget-vbox", has_text="Act at once").locator(".noUi-handle")
    for i in range(live.count()):
        at_end = live.nth(i).get_attribute("aria-valuenow") == live.nth(i).get_attribute("aria-valuemax")
        move(page, live.nth(i), "ArrowLeft" if at_end or i == 0 else "ArrowRight")  # a learning rate rather lower
    for _ in range(3):
        seen = samples(lab)
        wait_until(lambda seen=seen: samples(lab) > seen, "it trains on with the new values")

    press(lab, "Stop")
    stop = wait_until(lambda: "stopped after" in status(lab), "Stop")
    print(f"\n{name}: first picture after {first:.2f} s, Stop took {stop:.2f} s")
    assert stop < STOP_LIMIT
    seen = samples(lab)
    press(lab, "Show code")
    lab.locator(".cu-code pre").wait_for()
    code = lab.locator(".cu-code").inner_text()
    assert "cu.MLP(" in code and "lr=[(0, " in code and "cu.train(rule, data" in code
    shoot(page, f"{name}-code")
    assert samples(lab) == seen


def to_the_ends(page, lab, name):
    """All sliders of a playground to their lower ends, Train; to their upper ends, Train; Reset."""
    picture, sliders = lab.locator("img.cu-figure"), lab.locator(".noUi-handle")
    assert sliders.count() >= 3
    for key in ("Home", "End"):
        for i in range(sliders.count()):
            move(page, sliders.nth(i), key)
        time.sleep(0.5)  # the page sends the next slider's value when the kernel has taken the one before
        before = status(lab)
        press(lab, "Train")
        wait_until(lambda old=before: status(lab) != old and samples(lab) > 0, "training at the ends")
        time.sleep(1)
        shoot(page, f"{name}-{key.lower()}")
        wait_until(lambda: ended(lab), "the end")
    time.sleep(0.5)  # the picture comes a moment after the buttons
    last = picture.get_attribute("src")
    press(lab, "Reset")
    wait_until(lambda: samples(lab) == 0 and picture.get_attribute("src") != last, "Reset")
    assert lab.locator(".cu-message").inner_text().strip() == ""
    shoot(page, f"{name}-reset")
    source = picture.get_attribute("src")
    assert source.startswith("blob:") or base64.b64decode(source.split(",")[1]).startswith(b"\x89PNG")


def work_the_rest(page, name):
    """Widgets that are no playground: sliders to both ends, menus through their options, the rest pressed.
    Each must change something in its output beside itself."""

    def outside(css):
        found = page.locator(f".jp-OutputArea {css}:not(.cu-playground *)")
        return [found.nth(i) for i in range(found.count())]

    def settle(widget, before, what):
        """Wait until the widget's output looks different from `before`; how it looks then."""
        wait_until(lambda: widget.evaluate(LOOKS) != before, f"{name}: {what} changes the output")
        page.wait_for_function(KERNEL_IDLE)
        time.sleep(0.3)
        shoot(page, f"{name}-{what}".replace(" ", "-"))
        return widget.evaluate(LOOKS)

    for k, handle in enumerate(outside(".noUi-handle")):
        looks = handle.evaluate(LOOKS)
        for key in ("Home", "End"):
            before = value(handle)
            move(page, handle, key)
            if value(handle) != before:
                looks = settle(handle, looks, f"slider {k + 1} {key}")
    for k, menu in enumerate(outside("select")):
        looks = menu.evaluate(LOOKS)
        chosen = menu.evaluate("menu => menu.selectedIndex")
        count = menu.locator("option").count()
        for i in [i for i in range(count) if i != chosen] + [chosen]:
            menu.select_option(index=i)
            looks = settle(menu, looks, f"menu {k + 1} option {i + 1}")
    for k, button in enumerate([*outside("button.jupyter-button"), *outside("input[type=checkbox]")]):
        looks = button.evaluate(LOOKS)
        button.click()
        settle(button, looks, f"button {k + 1}")
