"""What a page shows and says: scripts that run inside it, and what is done with a notebook as a whole."""

import json
import os
import secrets
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCREENSHOTS = ROOT / "screenshots"
TOKEN = secrets.token_hex()  # without it the server, which runs code, would serve every user of this machine
RUN_ALL = 300_000  # ms for all cells of a lesson, on a slow machine that does other things too
SOON = 60_000  # ms for anything else

KERNEL_IDLE = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  const session = panel?.context?.sessionContext;
  if (!session) return false;
  await session.ready;
  return session.session?.kernel?.status === 'idle';
}"""
# The end of a page: its kernel stops, but for the one that lessons share, in which nothing is left of this lesson.
TIDY = "import ipywidgets; ipywidgets.Widget.close_all(); get_ipython().run_line_magic('reset', '-f')"
LEAVE = """async ([kept, tidy]) => {
  const sessions = window.jupyterapp?.serviceManager.sessions;
  await sessions?.refreshRunning();
  for (const session of sessions ? [...sessions.running()] : [])
    if (session.kernel?.id !== kept) await sessions.shutdown(session.id);
  const panel = window.jupyterapp?.shell.currentWidget?.context?.sessionContext;
  const kernel = panel?.session?.kernel;
  if (kernel?.id === kept) await kernel.requestExecute({code: tidy}).done;
}"""
# An error in the callback of a widget shows nowhere on the page: it is caught on its way.
LISTEN = """() => {
  window.callbackErrors = [];
  const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
  kernel.iopubMessage.connect((_, message) => {
    if (message.header.msg_type !== 'error') return;
    window.callbackErrors.push(message.content.traceback.join('\\n').replace(/\\x1b\\[[0-9;]*m/g, ''));
  });
}"""
ERRORS = """() => {
  const found = [...window.callbackErrors];
  for (const cell of window.jupyterapp.shell.currentWidget.content.model.cells) {
    if (cell.type === 'code' && !cell.executionCount) found.push('not run: ' + cell.sharedModel.getSource());
    for (const output of cell.type === 'code' ? cell.outputs.toJSON() : [])
      if (output.output_type === 'error') found.push(output.ename + ': ' + output.evalue);
      else if (output.name === 'stderr') found.push('in red: ' + output.text);
  }
  return found;
}"""
# How the output around a widget looks, sliders and buttons left out: they change when they are moved.
LOOKS = """widget => {
  const area = widget.closest('.jp-Cell-outputArea').cloneNode(true);
  area.querySelectorAll('.widget-slider, select, button, input').forEach(part => part.remove());
  return area.innerHTML;
}"""
# What a learner would see: pictures that did not load, formulas, folds or tables left as source.
UNSIGHTLY = r"""() => {
  const all = css => [...document.querySelectorAll('.jp-RenderedMarkdown ' + css)];
  const pictures = all('img').filter(img => img.src.startsWith(location.origin) && !img.naturalWidth);
  const folds = all('details').filter(fold => fold.open || fold.textContent === fold.firstChild.textContent);
  const source = /\$|<\/?\w+>|\{\{|^\||\*\*/m;
  const words = part => {  // without formulas that are set: a bar of |W| is not that of a table
    const copy = part.cloneNode(true);
    copy.querySelectorAll('mjx-container').forEach(formula => formula.remove());
    return copy.textContent;
  };
  const raw = all('p, li, td').filter(part => source.test(words(part)));
  return [...pictures, ...folds, ...all('mjx-merror'), ...raw].map(part => part.outerHTML.slice(0, 300));
}"""
# Widgets that a narrow page cuts off: what reaches over the right edge of the output it stands in. Only the text behind
# tqdm's bar may: the curve and the table below say the same.
CUT_OFF = """() => {
  const edge = part => part.getBoundingClientRect().right;
  const over = part => Math.round(edge(part) - edge(part.closest('.jp-OutputArea')));
  const shown = [...document.querySelectorAll('.jp-OutputArea .jupyter-widgets')].filter(part => part.offsetParent);
  const behindBar = part => part.matches('.widget-hprogress ~ *');
  const cutOff = shown.filter(part => over(part) > 5 && !behindBar(part));
  return cutOff.map(part => `${over(part)} px: ${part.outerHTML.slice(0, 300)}`);
}"""
NARROW = {"width": 600, "height": 1000}


def shoot(page, name):
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def shoot_pages(page, name):
    """The whole notebook, a screen at a time, folds open."""
    page.evaluate("document.querySelectorAll('details').forEach(fold => { fold.open = true })")
    view = page.locator(".jp-WindowedPanel-outer:visible").first
    height, step = view.evaluate("view => [view.scrollHeight, view.clientHeight]")
    for i in range(-(-height // step)):
        view.evaluate("(view, top) => { view.scrollTop = top }", i * step)
        shoot(page, f"{name}-page-{i + 1:02}")


AUTHORIZED = {"Authorization": f"token {TOKEN}"}


def post(server, place, **what):
    """Ask the Jupyter server for something new; its answer."""
    request = urllib.request.Request(f"{server}/api/{place}", json.dumps(what).encode(), AUTHORIZED, method="POST")
    with urllib.request.urlopen(request, timeout=SOON / 1000) as answer:
        return json.load(answer)


def open_and_run(page, address):
    page.goto(address)
    page.wait_for_function("!!window.jupyterapp")
    page.locator(".jp-NotebookPanel:visible, .jp-Notebook:visible").first.wait_for()
    page.wait_for_function(KERNEL_IDLE)
    page.evaluate(LISTEN)
    page.set_default_timeout(RUN_ALL)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    page.set_default_timeout(SOON)


def look_over(page, name):
    """Every cell has run, none failed or printed in red, all is rendered, and a narrow page holds the widgets."""
    assert page.evaluate(ERRORS) == []
    assert page.evaluate(UNSIGHTLY) == []
    wide = page.viewport_size
    page.set_viewport_size(NARROW)
    page.wait_for_timeout(300)  # the page lays itself out anew
    shoot(page, f"{name}-narrow")
    assert page.evaluate(CUT_OFF) == []
    page.set_viewport_size(wide)
    if os.environ.get("PAGES"):
        shoot_pages(page, name)
