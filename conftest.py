"""Tests of small networks are quickest on one thread each; with more they wait for each other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before anything loads torch
