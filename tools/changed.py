"""The numbers of the lessons changed since main, for `make check`: committed or not, in the folder or the notebook."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAIN = ("origin/main", "main", "HEAD")  # the first that there is; HEAD alone tells of what is not yet committed


def git(*arguments, root=ROOT) -> list[str]:
    """The lines of git's answer; none where git has none or there is no git."""
    try:
        run = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError:
        return []
    return run.stdout.splitlines() if run.returncode == 0 else []


def changed_lessons(root=ROOT) -> list[str]:
    bases = (git("merge-base", name, "HEAD", root=root) for name in MAIN)
    base = next(filter(None, bases), ["HEAD"])[0]
    paths = git("diff", "--name-only", base, root=root) + git("ls-files", "--others", "--exclude-standard", root=root)
    numbers = {match[1] for path in paths if (match := re.match(r"(?:lessons|notebooks)/(\d\d)_", path))}
    return sorted(n for n in numbers if list((root / "notebooks").glob(f"{n}_*.ipynb")))  # a lesson taken away has none


if __name__ == "__main__":
    print(*changed_lessons())
