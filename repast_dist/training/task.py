"""Check that a network fits a data set, and count the backward passes of its Fisher matrix."""

import math

from repast_dist.ground.errors import SettingsError
from repast_dist.network.layers.embedding import EmbeddingNode
from repast_dist.network.model import Model
from repast_dist.training.datasets import Dataset

_LABELS = {"cross_entropy": "classes", "next_token": "tokens", "regression": "numbers"}
"""Loss -> what labels must be; other losses have no use for them."""


def check_task(model: Model, data: Dataset) -> None:
    """Check that a network can learn a data set.

    Raises
    ------
    SettingsError
        The samples have another shape, there are more classes or numbers than outputs, or the loss
        is not defined for the labels or for the inputs' range.
    """
    spec = model.spec
    given = data.input_shape
    if data.labels == "tokens" and len(given) == 1:
        given = (1, 1, *given)
    if tuple(spec.input_shape) != given:
        raise SettingsError(
            f"model.input_shape: {spec.name} takes samples of {tuple(spec.input_shape)}, "
            f"dataset {data.name} has {data.sample_text}; choose a model made for it"
        )
    outputs = model.chain.output_shape[-1]
    if _LABELS.get(spec.loss, data.labels) != data.labels:
        valid = ", ".join(f"{loss} for {labels}" for loss, labels in _LABELS.items())
        raise SettingsError(
            f"model.loss: {spec.loss} does not fit {data.name}, whose labels are {data.labels}; "
            f"valid: {valid} (dataset.targets)"
        )
    if spec.classifies and outputs < data.classes:
        raise SettingsError(
            f"model.layers: {outputs} outputs for the {data.classes} {data.labels} of {data.name}"
        )
    _check_tokens(model, data)
    if spec.loss == "regression" and outputs != data.train_labels.shape[1]:
        raise SettingsError(
            f"model.layers: {outputs} outputs for the {data.train_labels.shape[1]} numbers of "
            f"{data.name}; valid: as many"
        )
    low, high = float(data.train_inputs.min()), float(data.train_inputs.max())
    if spec.loss == "pixel_cross_entropy" and (low < 0 or high > 1):
        raise SettingsError(
            f"model.loss: pixel_cross_entropy needs inputs in 0..1, {data.name} has "
            f"{low:.3g} to {high:.3g}; valid: dataset.scaling=unit"
        )


def fisher_passes(model: Model, fisher: str) -> int:
    """Return the number of backward passes for the Fisher matrix beside that of the loss.

    None for the empirical Fisher, which reuses the loss's own; one for the sampled; one per
    output for the exact.
    """
    return {"empirical": 0, "sampled": 1, "exact": math.prod(model.chain.output_shape)}[fisher]


def _check_tokens(model: Model, data: Dataset) -> None:
    """Check that a network that looks up tokens is given tokens, and has a vector for each."""
    first = model.chain.nodes[0]
    looks_up = isinstance(first, EmbeddingNode)
    if looks_up != (data.labels == "tokens"):
        raise SettingsError(
            f"model.layers: {model.spec.name} does {'' if looks_up else 'not '}begin with an "
            f"embedding, the labels of {data.name} are {data.labels}; valid: an embedding for "
            "tokens, other layers for the rest"
        )
    different = 1 + int(max(data.train_inputs.max(), data.test_inputs.max()))
    if isinstance(first, EmbeddingNode) and first.entries < different:
        raise SettingsError(
            f"model.layers[0].entries: {first.entries} for the {different} tokens of "
            f"{data.name}; valid: at least as many"
        )
    tokens = model.chain.output_shape[0]
    if data.labels == "tokens" and data.train_labels.shape[1] != tokens:
        raise SettingsError(
            f"model.layers: outputs for {tokens} tokens, {data.name} has labels for "
            f"{data.train_labels.shape[1]}; valid: as many"
        )
