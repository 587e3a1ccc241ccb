"""Runs in a lesson: stored ones as a table, a live one like them, and a quick one for its last number."""

from course_utils.training import train


def accuracy_table(stored, by="rule"):
    """Test accuracy of stored runs in per cent, a row for each value of column `by` (or of several), in stored order.

    Columns: mean, std over the seeds, seeds, lr, measured. stored: a frame of `stored_results`.
    """
    final = stored.dropna(subset=["test_accuracy"]).groupby(by, sort=False)
    table = (100 * final.test_accuracy.agg(["mean", "std"])).round(2)
    return table.assign(seeds=final.size(), lr=final.lr.first(), measured=final.measured.first())


def train_stored(rule, data, rows, **settings):
    """Train as stored runs were: at their learning rate, for as many epochs. Returns the `History`.

    rows: those of one rule, from `stored_results`. settings: what else `train` takes, and what is to be different.
    """
    return train(rule, data, **{"lr": rows.lr.iloc[0], "epochs": rows.epoch.max(), **settings})


def final_accuracy(rule, data, epochs=1, lr=0.1, **settings):
    """Validation accuracy in per cent after training, in silence; settings: as of `train`."""
    return 100 * train(rule, data, epochs=epochs, lr=lr, progress=False, **settings).frame.val_accuracy.iloc[-1]
