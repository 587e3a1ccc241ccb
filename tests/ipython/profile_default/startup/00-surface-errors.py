"""Run by every kernel that the tests start: errors nobody would see, and warnings in red, fail a cell instead.

A cell passes when it raises nothing, but threads, asyncio tasks and finalisers raise elsewhere. Here such
errors are collected and shown at the end of the running cell, or of the next one when no cell was running.
nbval takes a shown traceback for a failure. Two kinds stay silent, because somebody may still ask for them:
a failed task that is still referenced, and a failed future. Whoever keeps one must raise its error on.
"""


def _install():
    import asyncio
    import sys
    import threading
    import warnings

    from IPython import get_ipython

    shell = get_ipython()
    caught = []

    def from_thread(args):
        if args.exc_type is not SystemExit:  # the polite way to end a thread
            caught.append((args.exc_type, args.exc_value, args.exc_traceback))

    def from_finaliser(args):
        caught.append((args.exc_type, args.exc_value, args.exc_traceback))

    def from_loop(loop, context):
        error = context.get("exception") or RuntimeError(context["message"])
        caught.append((type(error), error, error.__traceback__))

    def from_warning(message, category, *_, **__):
        caught.append((category, message, None))

    def watch_loop(info):
        # Start-up files run before the kernel's loop does, so the loop is first seen at the first cell.
        asyncio.get_running_loop().set_exception_handler(from_loop)

    def show(result):
        while caught:
            shell.showtraceback(caught.pop(0))

    threading.excepthook = from_thread
    sys.unraisablehook = from_finaliser
    warnings.showwarning = from_warning
    shell.events.register("pre_run_cell", watch_loop)
    shell.events.register("post_run_cell", show)


_install()
del _install
