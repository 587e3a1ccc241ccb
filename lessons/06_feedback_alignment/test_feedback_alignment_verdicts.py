"""What lesson 06 says of its stored runs holds on their rows."""

import course_utils as cu


def test_it_first_loses_to_random_features_and_then_passes_them_on_every_seed():
    stored = cu.stored_results(6)
    by_seed = stored.pivot_table(index="samples", columns=["rule", "seed"], values="val_accuracy")
    ahead = 100 * (by_seed["FeedbackAlignment"] - by_seed["FrozenHidden(FeedbackAlignment)"])
    assert ahead.shape[1] == 5 and ahead.iloc[1].max() < -2  # the first look, after 22,000 images
    assert ahead[ahead.index > 220_000].min(axis=None) > 1
