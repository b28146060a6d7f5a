"""A module that another one imports: both travel to the workers."""

from sklearn.datasets import load_digits


def make_data(train=192, test=64):
    x, y = load_digits(return_X_y=True)
    x = (x / 16).reshape(-1, 1, 8, 8)
    return (x[:train], y[:train]), (x[train : train + test], y[train : train + test])
