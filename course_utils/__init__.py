"""Tools of the course *Without Backprop*: one line of a training loop, `rule.backward(x, y)`, many rules."""

import os
import sys

# A ✓ on a terminal that has no such sign becomes a ?, where it would end the program.
for stream in (sys.stdout, sys.stderr):
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="replace")

# torch's threads by default wait for their next piece of work in a busy loop. When another program wants the cores
# (a browser, a second notebook), that makes a training step ten times slower; never to spin makes a quiet machine
# wait for each wake-up. So: spin briefly. Both are read when torch is loaded, hence set before.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "2000")

from course_utils import costs, metrics, plots, rules
from course_utils.data import Dataset, load_dataset
from course_utils.device import setup
from course_utils.exercises import beside, check, check_update
from course_utils.history import History
from course_utils.network import MLP, Net
from course_utils.playground import Playground as playground  # a lesson calls it like a function
from course_utils.playground import under_slider
from course_utils.report import environment
from course_utils.controls import FrozenHidden
from course_utils.rule import Knob, Rule
from course_utils.runs import resume
from course_utils.settings import Schedule
from course_utils.sweeps import accuracy_table, final_accuracy, stored_rates, stored_results, sweep, train_stored
from course_utils.training import evaluate, train
