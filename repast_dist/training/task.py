"""Check that a network fits a data set, and count the backward passes of its Fisher matrix."""

from repast_dist.ground.errors import SettingsError
from repast_dist.network.model import Model
from repast_dist.training.datasets import Dataset


def check_task(model: Model, data: Dataset) -> None:
    """Check that a network can learn a data set.

    Raises
    ------
    SettingsError
        The samples have another shape, there are more classes or numbers than outputs, or the loss
        is not defined for the labels or for the inputs' range.
    """
    spec = model.spec
    if tuple(spec.input_shape) != data.input_shape:
        raise SettingsError(
            f"model.input_shape: {spec.name} takes samples of {tuple(spec.input_shape)}, "
            f"dataset {data.name} has {data.input_shape}; choose a model made for it"
        )
    outputs = model.chain.output_shape[0]
    if spec.loss == "cross_entropy" and outputs < data.classes:
        raise SettingsError(
            f"model.layers: {outputs} outputs for the {data.classes} classes of {data.name}"
        )
    if (spec.loss == "cross_entropy" and not data.classes) or (
        spec.loss == "regression" and data.classes
    ):
        labels = "classes" if data.classes else "numbers"
        raise SettingsError(
            f"model.loss: {spec.loss} does not fit {data.name}, whose labels are {labels}; valid: "
            "cross_entropy for classes, regression for numbers (dataset.targets=numbers)"
        )
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
    return {"empirical": 0, "sampled": 1, "exact": model.chain.output_shape[0]}[fisher]
