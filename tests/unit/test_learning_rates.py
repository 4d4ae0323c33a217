"""Of several learning rates the best on validation is taken, and one that diverges does not end the others."""

import pytest

from lm_recipes.training.callbacks import Diverged
from lm_recipes.training.finetuning import best_rate

SCORES = {1e-4: 0.7, 1e-3: 0.8, 1e-2: None, 1e-1: None}


def trained(made: list):
    def train(seed: int, rate: float) -> tuple[float, str]:
        made.append((seed, rate))
        if SCORES[rate] is None:
            raise Diverged("the loss has exploded")
        return SCORES[rate] + seed / 100, f"model {seed} {rate}"

    return train


@pytest.mark.parametrize("rates", [[1e-4, 1e-3, 1e-2], [1e-2, 1e-3, 1e-4]])
def test_the_best_rate_trains_all_seeds_and_a_diverged_one_is_left_out(rates, caplog):
    made = []
    rate, tried, runs = best_rate(trained(made), rates, seeds=[3, 4])
    assert rate == 1e-3
    assert tried == pytest.approx({"0.0001": 0.73, "0.001": 0.83})
    assert {seed: model for seed, (_, model) in runs.items()} == {3: "model 3 0.001", 4: "model 4 0.001"}
    assert made == [*((3, rate) for rate in rates), (4, 1e-3)]
    assert "learning rate 0.01 is out: the loss has exploded" in caplog.text


def test_where_all_rates_diverge_the_last_says_so():
    with pytest.raises(Diverged, match="exploded"):
        best_rate(trained([]), [1e-2, 1e-1], seeds=[0])
