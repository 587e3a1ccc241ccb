"""Data of one's own: whatever form they come in, the same tensors; and what does not fit is refused by name."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import clusters, small_net
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import course_utils as cu

RANDOM = np.random.default_rng(0)
X, Y = RANDOM.normal(size=(30, 6)), np.arange(30) % 3
TABLE = pd.DataFrame(X, columns=list("abcdef"))


def same(one, other):
    return all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(one.tensors, other.tensors, strict=True))


class Pairs(torch.utils.data.Dataset):
    """A torch dataset as torchvision's are: an item is (numbers, a Python int)."""

    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return X[i], int(Y[i])


class Endless(IterableDataset):
    def __iter__(self):
        return iter(())


FORMS_OF_X = {
    "float32": X.astype(np.float32), "tensor": torch.tensor(X), "list": X.tolist(), "table": TABLE,
    "big-endian": X.astype(">f8"), "backwards twice": X[::-1][::-1], "columns first": np.asfortranarray(X),
    "a grid for each": X.reshape(30, 3, 2), "with a gradient": torch.tensor(X, requires_grad=True),
    "a table with bools": TABLE.assign(a=TABLE.a > 0).assign(a=TABLE.a),
}  # fmt: skip
FORMS_OF_Y = {
    "int32": Y.astype(np.int32), "bytes": Y.astype(np.uint8), "tensor": torch.tensor(Y), "list": Y.tolist(),
    "column": Y[:, None], "series": pd.Series(Y), "frame": pd.DataFrame({"y": Y}), "one-hot": np.eye(3)[Y],
    "one-hot whole": np.eye(3, dtype=int)[Y], "one-hot bools": pd.get_dummies(Y),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS_OF_X)
def test_every_form_of_x_gives_the_same_data(form):
    data = cu.Dataset.of(FORMS_OF_X[form], Y)
    assert same(data, cu.Dataset.of(X, Y)) and data.x_train.dtype == torch.float32


@pytest.mark.parametrize("form", FORMS_OF_Y)
def test_every_form_of_labels_gives_the_same_data(form):
    data = cu.Dataset.of(X, FORMS_OF_Y[form])
    assert same(data, cu.Dataset.of(X, Y)) and data.y_train.dtype == torch.int64


def test_a_torch_dataset_stands_for_both():
    pairs = TensorDataset(torch.tensor(X), torch.tensor(Y))
    for given in (pairs, Pairs()):
        assert same(cu.Dataset.of(given), cu.Dataset.of(X, Y))
    assert same(cu.Dataset.of(pairs, x_test=Pairs()), cu.Dataset.of(X, Y, X, Y))


def test_a_table_of_words_made_numbers_by_pandas():
    table = pd.DataFrame({"size": [1.5, 2.5, 3.5, 4.5] * 5, "colour": ["red", "blue", "red", "green"] * 5})
    data = cu.Dataset.of(pd.get_dummies(table), pd.factorize(table.colour)[0])
    assert data.x_train.shape == (16, 4) and set(data.x_train[:, 1:].unique().tolist()) == {0, 1}


def test_bytes_of_images_are_divided_by_255_and_bytes_of_yes_and_no_are_not():
    images = RANDOM.integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
    data = cu.Dataset.of(images, np.arange(40) % 2, images[:5], np.arange(5) % 2)
    assert data.x_train.shape == (36, 192)
    assert torch.equal(data.x_test, torch.from_numpy(images[:5]).flatten(1).float() / 255)
    flags = RANDOM.integers(0, 2, (40, 8), dtype=np.uint8)
    assert cu.Dataset.of(flags, np.arange(40) % 2).x_train.max() == 1


def test_values_stay_values():
    for values, outputs in ((X[:, 0], 1), (X[:, :1], 1), (X[:, :2], 2), (X.reshape(30, 2, 3), 6)):
        data = cu.Dataset.of(X, values.astype(np.float32))
        assert data.y_train.shape == (24, outputs) and data.y_train.dtype == torch.float32
    # What happens to be one-hot in one part and is none in another are values in both.
    data = cu.Dataset.of(X, X[:, :3], X[:3], np.eye(3))
    assert data.y_test.dtype == torch.float32 and torch.equal(data.y_test, torch.eye(3))


def test_the_type_is_torch_s_default():
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(cu.Dataset.of(X, Y, X, Y).x_test, torch.tensor(X))
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_missing_is_split_off_at_random_always_the_same_and_nothing_is_lost():
    x, y = np.arange(100.0)[:, None], np.arange(100) // 50  # in order, as files are
    data = cu.Dataset.of(x, y)
    parts = [data.x_train, data.x_val, data.x_test]
    assert [len(part) for part in parts] == [80, 10, 10]
    assert sorted(torch.cat(parts)[:, 0].tolist()) == x[:, 0].tolist()
    assert all(torch.equal((px[:, 0] >= 50).long(), py) for px, py in zip(parts, data.tensors[1::2], strict=True))
    assert len(data.y_val.unique()) == 2  # not the last ones, which are all of one class
    assert same(data, cu.Dataset.of(x, y))
    given = cu.Dataset.of(x, y, x_val=x[:7], y_val=y[:7], x_test=x[:3], y_test=y[:3])
    assert [len(part) for part in given.tensors[::2]] == [100, 7, 3] and given.x_train[:, 0].tolist() == x[
        :, 0
    ].tolist()


def test_all_is_copied_and_named():
    x, y = torch.tensor(X), torch.tensor(Y)
    data = cu.Dataset.of(x, y, x, y, x_val=x, y_val=y, name="flowers")
    x += 1
    y += 1
    assert same(data, cu.Dataset.of(X, Y, X, Y, x_val=X, y_val=Y)) and not data.is_fallback
    assert repr(data) == "<Dataset flowers: 30 + 30 + 30 examples of 6 numbers>"


ALL = dict(x_train=X, y_train=Y)
REFUSED = {
    "words": (dict(x_train=X, y_train=["a", "b", "c"] * 10), "y_train is no array of numbers.*factorize"),
    "words in a column": (ALL | dict(x_train=TABLE.assign(a="red")), "x_train is no array.*get_dummies"),
    "rows of several lengths": (dict(x_train=[[1, 2], [3]], y_train=[0, 1]), "x_train is no array of numbers"),
    "nothing": (dict(x_train=None, y_train=Y), "x_train is no array of numbers"),
    "no labels": (dict(x_train=X), "y_train is missing"),
    "labels without images": (ALL | dict(y_test=Y), "x_test is no array"),
    "fewer labels": (dict(x_train=X, y_train=Y[:9]), "x_train holds 30 examples and y_train 9"),
    "an empty part": (ALL | dict(x_test=X[:0], y_test=Y[:0]), "x_test holds 0 examples"),
    "all empty": (dict(x_train=X[:0], y_train=Y[:0]), "x_train holds 0 examples"),
    "too few to split": (dict(x_train=X[:2], y_train=Y[:2]), "x_train holds 2 examples; that is too few"),
    "one row": (dict(x_train=X[0], y_train=Y[:6]), r"x_train has shape \(6,\).*reshape"),
    "other columns": (ALL | dict(x_test=X[:, :4], y_test=Y), "part test holds 4 numbers.*training part 6"),
    "bytes and none": (ALL | dict(x_val=np.ones((3, 6), np.uint8), y_val=[0, 1, 2]), "part val holds 6 bytes"),
    "labels and values": (ALL | dict(x_val=X, y_val=X), "part val .* 6 values.*training part .* a label"),
    "labels from -1": (dict(x_train=X, y_train=Y - 1), r"y_train has shape \(30,\), from -1"),
    "several labels each": (dict(x_train=X, y_train=np.stack([Y, Y], 1)), r"y_train has shape \(30, 2\)"),
    "NaN in x": (ALL | dict(x_test=np.full((2, 6), np.nan), y_test=[0, 1]), "x_test holds NaN"),
    "too large for a float": (dict(x_train=X * 1e300, y_train=Y), "x_train holds NaN or infinite"),
    "NaN in y": (dict(x_train=X, y_train=np.where(Y, np.nan, 0.5)), "y_train holds NaN"),
    "complex": (dict(x_train=torch.tensor(X) * 1j, y_train=Y), "x_train holds complex"),
    "a loader": (dict(x_train=DataLoader(Pairs())), "x_train is a DataLoader; give .*loader.dataset"),
    "an endless dataset": (dict(x_train=Endless()), "x_train is a Endless; give a torch dataset with a length"),
    "a dataset and labels": (dict(x_train=Pairs(), y_train=Y), "x_train is a Pairs"),
    "no pairs": (dict(x_train=TensorDataset(torch.tensor(X))), r"has to hold pairs \(x, y\)"),
    "no name": (ALL | dict(name=7), "name is 7"),
    "no such device": (ALL | dict(device="tpu"), "unknown device 'tpu'"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_by_name(what):
    arguments, words = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        cu.Dataset.of(**arguments)


# ------------------------------------------------------------------ the door of `train` and `evaluate`


def backprop():
    return cu.rules.Backprop(small_net((12, 9, 4), dtype=torch.float32))


def spoilt(part, how):
    """Clusters with one part spoilt."""
    data = clusters()
    x, y = getattr(data, f"x_{part}"), getattr(data, f"y_{part}")
    new = {
        "a column of labels": {f"y_{part}": y[:, None]},
        "one-hot": {f"y_{part}": torch.eye(4, dtype=torch.int64)[y]},
        "labels from 1": {f"y_{part}": torch.where(torch.arange(len(y)) % 4 == 0, 4, y.clamp(min=1))},
        "fewer labels": {f"y_{part}": y[:-1]},
        "numpy": {f"y_{part}": y.numpy()},
        "empty": {f"x_{part}": x[:0], f"y_{part}": y[:0]},
        "NaN": {f"x_{part}": x * torch.nan},
        "other width": {f"x_{part}": x[:, :5]},
    }
    return replace(data, **new[how])


HOW = ["a column of labels", "one-hot", "labels from 1", "fewer labels", "numpy", "empty", "NaN", "other width"]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_every_part_passes_the_door_of_train(part, how):
    rule = backprop()
    with pytest.raises(ValueError, match=f"data.x_{part}, data.y_{part}: [xy] (has|holds|is)"):
        cu.train(rule, spoilt(part, how), batch_size=8, progress=False)


@pytest.mark.parametrize("how", HOW)
def test_evaluate_has_the_same_door_and_gives_no_accuracy_above_1(how):
    rule, data = backprop(), spoilt("test", how)
    with pytest.raises(ValueError, match="^[xy] (has|holds|is)"):
        cu.evaluate(rule, data.x_test, data.y_test)


def test_labels_from_1_are_told_how_to_be_counted():
    with pytest.raises(ValueError, match="labels from 1 to 4; .* classes 0 to 3; count them from 0: y - 1"):
        cu.evaluate(backprop(), torch.rand(4, 12), torch.arange(1, 5))


X32, Y64 = torch.rand(30, 12), torch.arange(30) % 4
NO_DATA = [(X32, Y64), DataLoader(TensorDataset(X32, Y64)), TensorDataset(X32, Y64), None, "mnist", X, cu.Dataset]


@pytest.mark.parametrize("data", NO_DATA, ids=lambda data: type(data).__name__)
def test_what_is_no_dataset_is_told_how_to_make_one(data):
    rule = backprop()
    for use in (lambda: cu.train(rule, data), lambda: cu.playground(cu.rules.Backprop, data=data)):
        with pytest.raises(ValueError, match=r"^data is .*cu.load_dataset\(…\) returns.*cu.Dataset.of\(x_train"):
            use()
