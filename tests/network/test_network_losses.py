"""What losses cost, against a unit that computes them number by number and counts as it goes."""

import dataclasses
import math

import numpy as np
import pytest

from repast_dist.ground.errors import DataError
from repast_dist.network import LayerShape, Workload, kinds
from repast_dist.network.losses import LossShape
from repast_dist.training.losses import exact_errors, loss_value, sampled_errors

ROWS, WIDTH = 3, 7


@dataclasses.dataclass
class Unit:
    """A digital unit: every call is one operation."""

    done: int = 0

    def __call__(self, function, *values):
        self.done += 1
        return function(*values)

    def add(self, a, b):
        return self(lambda: a + b)

    def minus(self, a, b):
        return self(lambda: a - b)

    def times(self, a, b):
        return self(lambda: a * b)

    def shares(self, row):
        """Softmax: exponentials, their sum, divisions."""
        powers = [self(math.exp, z) for z in row]
        total = 0.0
        for power in powers:
            total = self.add(total, power)
        return [self(lambda p=power: p / total) for power in powers]


def classes(unit, row, label):
    """Return the loss and the errors of a row of logits."""
    errors = unit.shares(row)
    loss = unit.add(0.0, -unit(math.log, errors[label]))
    errors[label] = unit.minus(errors[label], 1.0)
    return loss, errors


def bits(unit, row, target):
    loss, errors = 0.0, []
    for z, t in zip(row, target, strict=True):
        softplus = unit(lambda z=z: math.log1p(math.exp(z)))
        loss = unit.add(loss, unit.minus(softplus, unit.times(z, t)))
        errors.append(unit.minus(unit(lambda z=z: 1 / (1 + math.exp(-z))), t))
    return loss, errors


def numbers(unit, row, target):
    """Return half the squared error: the half is a scale."""
    loss, errors = 0.0, []
    for z, t in zip(row, target, strict=True):
        errors.append(unit.minus(z, t))
        loss = unit.add(loss, unit.times(errors[-1], errors[-1]))
    return loss / 2, errors


@pytest.mark.parametrize(
    ("loss", "formula"),
    [("cross_entropy", classes), ("pixel_cross_entropy", bits), ("regression", numbers)],
)
def test_a_loss_and_its_errors_take_as_many_operations_as_they_are_priced(loss, formula):
    random, unit = np.random.default_rng(0), Unit()
    outputs = random.normal(size=(ROWS, WIDTH))
    target = random.random((ROWS, WIDTH))
    labels = random.integers(WIDTH, size=ROWS) if loss == "cross_entropy" else target
    expected = loss_value(loss, outputs, target, labels)
    found = [formula(unit, *row) for row in zip(outputs.tolist(), labels.tolist(), strict=True)]
    assert sum(value for value, _ in found) == pytest.approx(expected.total)
    np.testing.assert_allclose([errors for _, errors in found], expected.errors)
    assert unit.done == LossShape(loss=loss, rows=ROWS, width=WIDTH).value_ops


def test_drawing_labels_takes_as_many_operations_as_it_is_priced():
    """Of the shares that the loss has left; the stream is that of `sampled_errors`."""
    from repast_dist.ground.rng import generator

    outputs = np.random.default_rng(1).normal(size=(ROWS, WIDTH))
    expected = sampled_errors("cross_entropy", outputs, 5, 2, np.arange(ROWS))
    unit, found = Unit(), []
    for number, row in enumerate(outputs.tolist()):
        shares = Unit().shares(row)
        drawn = unit(generator(5, "fisher", 2, number).random)
        reached, label = 0.0, 0
        for place, share in enumerate(shares):
            reached = unit.add(reached, share)
            passed = unit(lambda drawn=drawn, reached=reached: drawn >= reached)
            label = min(place + 1, WIDTH - 1) if passed else label
        shares[label] = unit.minus(shares[label], 1.0)
        found.append(shares)
    np.testing.assert_allclose(found, expected)
    assert unit.done == LossShape(loss="cross_entropy", rows=ROWS, width=WIDTH).drawn_ops


def test_a_pass_of_the_exact_matrix_takes_as_many_operations_as_it_is_priced():
    outputs = np.random.default_rng(2).normal(size=(1, WIDTH))
    shares = Unit().shares(outputs[0].tolist())
    for label, expected in enumerate(exact_errors("cross_entropy", outputs)):
        unit, errors = Unit(), list(shares)
        root = unit(math.sqrt, errors[label])
        errors[label] = unit.minus(errors[label], 1.0)
        errors = [unit.times(error, root) for error in errors]
        np.testing.assert_allclose(errors, expected[0])
        assert unit.done == LossShape(loss="cross_entropy", rows=1, width=WIDTH).root_ops


@pytest.mark.parametrize("names", [("fc", ""), ("elsewhere",)])
def test_a_loss_belongs_to_one_layer_that_exists(names):
    layer = LayerShape(name="fc", kind=kinds.DENSE, in_features=3, out_features=4)
    losses = tuple(LossShape(loss="regression", rows=1, width=4, layer=name) for name in names)
    with pytest.raises((DataError, ValueError), match="losses of layers that are missing"):
        Workload(name="net", layers=(layer,), losses=losses)
