"""A small playground on data that trains in milliseconds, for the tests that look at it and those that run it."""

import pytest
import torch
from helpers.small_playground import Knobby, make_data

import course_utils as cu


@pytest.fixture
def data():
    torch.set_num_threads(1)
    return make_data()


@pytest.fixture
def lab(data):
    return cu.playground(Knobby, data=data, sizes=[20, 16, 4])
