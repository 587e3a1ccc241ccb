"""Which files stand behind a class or function."""

from course_utils import sources


def behind(thing):
    """{module: hash of its tree} of all of the course's and the reader's own modules behind it."""
    memory = sources.Memory()
    memory.of(thing)
    return sources.files_of(memory.modules)
