"""A second-order optimizer of one's own: FOOF, which solves with input moments alone."""

from typing import Literal

from repast_dist.ground.spec import spec
from repast_dist.training.optimizers import OPTIMIZERS, SecondOrder, heavy_ball, zeros


@OPTIMIZERS.register
@spec
class InputMoments(SecondOrder):
    """Descent along gradients solved with the moments of a layer's inputs (Benzing 2022).

    Attributes
    ----------
    method : {"input_moments"}
        The optimizer's name.
    """

    method: Literal["input_moments"] = "input_moments"

    @property
    def sides(self):
        """Solve from the left alone."""
        return ("A",)

    def statistic(self, side, layer):
        """Return the moments of the layer's inputs."""
        return layer.input_moment()

    def initial_state(self, weights):
        """Return zeroed momentum."""
        return zeros(weights, ["momentum"])

    def update(self, given):
        """Step along the solved gradients; along plain ones where there are none."""
        return heavy_ball(self, 0.5, given, {**given.gradients, **given.directions})
