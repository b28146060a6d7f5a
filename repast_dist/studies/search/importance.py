"""Which parameters decide an objective."""

from collections.abc import Mapping

from repast_dist.ground.rng import words
from repast_dist.studies.search.found import Found
from repast_dist.studies.search.proposals import optuna_module

_FEWEST = 4


def importances(found: Found, column: str) -> Mapping[str, float] | None:
    """Return parameter -> its share of an objective's variance, the largest first.

    It is the functional ANOVA of Hutter et al. (2014) as Optuna has it, over all points that were
    measured, those that break constraints too. None: too few points, or all are the same.
    """
    optuna = optuna_module()
    distributions = found.space.distributions()
    values = [float(found.records[number][column]) for number in found.complete]
    if len(values) < _FEWEST or min(values) == max(values):
        return None
    study = optuna.create_study()
    for number, value in zip(found.complete, values, strict=True):
        study.add_trial(
            optuna.trial.create_trial(
                value=value, params=found.seen[number], distributions=distributions
            )
        )
    seed = int(words(1, 0, "importance")[0] >> 1)
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    weights: Mapping[str, float] = optuna.importance.get_param_importances(
        study, evaluator=evaluator
    )
    return weights
