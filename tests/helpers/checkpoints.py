"""A short run, whole or cut, and whether two are the same."""

import course_utils as cu
from helpers.small_training import DATA, new_rule, same_weights

HOW = {"epochs": 3, "lr": 0.1, "batch_size": 16, "progress": False}


def without_time(history):
    return history.frame.drop(columns=[name for name in history.frame if "seconds" in name])


def same_run(one, other):
    (history, rule), (again, its_rule) = one, other
    equal = without_time(history).equals(without_time(again)) and same_weights(rule, its_rule)
    return equal and history.call == again.call and history.status == again.status


def whole(make=new_rule, **settings):
    rule = make()
    return cu.train(rule, DATA, **{**HOW, **settings}), rule


def cut(path, at=150, make=new_rule, **settings):
    """A run that pauses after so many samples."""
    cu.train(make(), DATA, **{**HOW, "stop_after": at, **settings}, checkpoint=path)
