"""Letters drawn stroke by stroke: shipped shapes, bent and slanted anew for every picture."""

import dataclasses
import functools
import json
from importlib.resources import files

import numpy as np

from repast_dist.ground.rng import generator
from repast_dist.training.datasets.split import Samples

FILE = "hershey_letters.json"
LETTERS = 26
PIXELS = 28

_SPACING = 0.7
"""Between points along a stroke, in the fonts' units: a capital is 21 of them high."""
_WAVES = 3
_BEND, _STROKE_SHIFT, _TURN, _SLANT, _STRETCH = 0.08, 0.04, 0.1, 0.2, 0.15
"""Standard deviations: displacement by each wave and shift of each stroke, in half heights;
rotation in radians; slant in widths per height; logarithm of width over height."""
_HEIGHT, _SHIFT, _PEN = (17.0, 21.0), 1.0, (0.75, 1.25)
"""In pixels: the longer side of a letter, its displacement, the width of the pen."""
_INK = 1.6
"""Ink of a straight stroke in its middle; what is above 1 is black."""


@dataclasses.dataclass(frozen=True)
class Glyph:
    """Points along the strokes of a letter, evenly spaced.

    Attributes
    ----------
    points : ndarray
        (P, 2) x and y in -1..1 along the longer side, y downwards.
    stroke : ndarray
        (P,) int64, the stroke that each belongs to.
    spacing : float
        Between points along a stroke.
    """

    points: np.ndarray
    stroke: np.ndarray
    spacing: float


@functools.cache
def glyphs() -> tuple[tuple[Glyph, ...], ...]:
    """Return the shapes of every letter, from a to z: capitals and small ones of every hand."""
    path = files("repast_dist.training.datasets") / "files" / FILE
    shapes: list[list[Glyph]] = [[] for _ in range(LETTERS)]
    for item in json.loads(path.read_text(encoding="utf-8")):
        shapes[ord(item["letter"].lower()) - ord("a")].append(_glyph(item["strokes"]))
    return tuple(map(tuple, shapes))


def drawn_letters(count: int, seed: int, part: str) -> Samples:
    """Return pictures of letters and which they are, in balanced random order.

    A picture depends on the seed, the part and its number alone, so that more of them begin with
    the same ones.

    Parameters
    ----------
    count : int
        Pictures.
    seed : int
        Of all draws.
    part : str
        Of the data, such as ``train``.

    Returns
    -------
    tuple of ndarray
        (count, 1, 28, 28) float32 in 256 levels of 0..1, ink on 0; (count,) int64, 0 for a.
    """
    rounds = -(-count // LETTERS)
    order = [generator(seed, "letters", part, turn).permutation(LETTERS) for turn in range(rounds)]
    labels = np.concatenate([*order, np.zeros(0, np.int64)])[:count].astype(np.int64)
    pictures = np.empty((count, 1, PIXELS, PIXELS), np.float32)
    for number, label in enumerate(labels.tolist()):
        pictures[number, 0] = _picture(label, generator(seed, "letter", part, number))
    return pictures, labels


def _glyph(strokes: list[list[list[float]]]) -> Glyph:
    points, numbers = [], []
    for number, stroke in enumerate(strokes):
        corners = np.array(stroke, np.float64)
        lengths = np.hypot(*np.diff(corners, axis=0).T)
        along = np.concatenate([[0.0], np.cumsum(lengths)])
        places = np.linspace(0.0, along[-1], max(2, round(along[-1] / _SPACING) + 1))
        points.append(np.stack([np.interp(places, along, axis) for axis in corners.T], axis=1))
        numbers.append(np.full(len(places), number))
    all_points = np.concatenate(points)
    low, high = all_points.min(axis=0), all_points.max(axis=0)
    half = float((high - low).max()) / 2.0
    return Glyph((all_points - (low + high) / 2.0) / half, np.concatenate(numbers), _SPACING / half)


def _picture(label: int, random: np.random.Generator) -> np.ndarray:
    """Return one picture, (28, 28) in 256 levels of 0..1."""
    shapes = glyphs()[label]
    glyph = shapes[random.integers(len(shapes))]
    normal = random.standard_normal
    points = glyph.points + _STROKE_SHIFT * normal((glyph.stroke[-1] + 1, 2))[glyph.stroke]
    frequency, phase = 1.5 * normal((_WAVES, 2)), random.uniform(0.0, 2.0 * np.pi, _WAVES)
    points = points + np.sin(points @ frequency.T + phase) @ (_BEND * normal((_WAVES, 2)))
    turn, slant, stretch = np.array([_TURN, _SLANT, _STRETCH]) * normal(3)
    turned = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    slanted = np.array([[np.exp(stretch), 0.0], [-slant, 1.0]])
    points = points @ slanted @ turned
    low, high = points.min(axis=0), points.max(axis=0)
    scale = random.uniform(*_HEIGHT) / float((high - low).max())
    centre = (PIXELS - 1) / 2.0 + _SHIFT * random.uniform(-1.0, 1.0, 2)
    pixels = (points - (low + high) / 2.0) * scale + centre
    pen = random.uniform(*_PEN)
    near = np.exp(-0.5 * ((pixels[:, :, None] - np.arange(PIXELS)) / pen) ** 2)
    # A stroke of evenly spaced Gaussian dots is one across it.
    dot = _INK * glyph.spacing * scale / (pen * np.sqrt(2.0 * np.pi))
    ink = np.minimum(dot * (near[:, 1].T @ near[:, 0]), 1.0)
    return np.asarray(np.round(255.0 * ink) / 255.0, np.float32)
