"""Everything that changes over a run is a pure function of the step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vae_dist.config import AdamWConfig, Config, parse_config
from vae_dist.optim.schedules import Schedule, beta_at, ema_decay_at, is_due, learning_rate_at, samples_at
from vae_dist.training import train


def test_the_learning_rate_warms_up_and_falls_as_half_a_cosine() -> None:
    optim = AdamWConfig(lr=2.0, warmup_steps=10, schedule="cosine")
    assert [learning_rate_at(step, optim, 110) for step in (0, 9, 10)] == pytest.approx([0.2, 2.0, 2.0])
    assert learning_rate_at(60, optim, 110) == pytest.approx(1.0)
    assert learning_rate_at(110, optim, 110) == pytest.approx(0.0, abs=1e-12)


def test_a_constant_learning_rate_only_warms_up() -> None:
    optim = AdamWConfig(lr=2.0, warmup_steps=4, schedule="constant")
    assert [learning_rate_at(step, optim, 10) for step in (0, 1, 3, 4, 9)] == pytest.approx([0.5, 1.0, 2.0, 2.0, 2.0])


def test_beta_warms_up() -> None:
    assert beta_at(4, beta=2.0, warmup_steps=10) == pytest.approx(1.0)
    assert beta_at(99, beta=2.0, warmup_steps=10) == beta_at(0, beta=2.0, warmup_steps=0) == 2.0


def test_there_are_more_samples_in_the_last_part() -> None:
    few_then_many = [samples_at(step, steps=10, samples=1, final_samples=8, final_from=0.75) for step in range(10)]
    assert few_then_many == [1] * 8 + [8] * 2
    assert samples_at(9, steps=10, samples=3, final_samples=None, final_from=0.1) == 3


def test_the_moving_average_forgets_its_start() -> None:
    assert [ema_decay_at(step, 0.5) for step in (0, 1, 8, 100)] == pytest.approx([0.1, 2 / 11, 0.5, 0.5])


def test_an_interval_is_also_due_after_the_last_step() -> None:
    assert [step for step in range(8) if is_due(step, every=3, last=7)] == [3, 6, 7]
    assert [step for step in range(8) if is_due(step, every=None, last=7)] == [7]


def test_a_step_has_one_record_of_all_that_is_scheduled() -> None:
    sections = {
        "objective": {"kind": "iwae", "beta": 2.0, "warmup_steps": 4, "samples": 1, "final_samples": 5},
        "optim": {"lr": 2.0, "warmup_steps": 4, "schedule": "constant", "ema": 0.5},
        "train": {"steps": 10},
    }
    schedule = Schedule(parse_config(sections, "here"))
    assert schedule(0).logged() == {"lr": 0.5, "beta": 0.5, "samples": 1, "ema_decay": 0.1}
    assert schedule(9).logged() == {"lr": 2.0, "beta": 2.0, "samples": 5, "ema_decay": 0.5}
    assert schedule(9) == schedule(9)
    assert Schedule(parse_config({"optim": {"ema": None}}, "here"))(0).ema_decay is None


def test_a_terms_weight_rises_from_its_first_step_and_its_learning_rate_follows_the_models() -> None:
    sections: dict[str, Any] = {
        "data": {"binarize": "none"},
        "model": {"likelihood": "gaussian"},
        "perceptual": {"kind": "lpips", "weight": 3.0, "start_step": 2, "warmup_steps": 3},
        "adversary": {"kind": "patch", "weight": 2.0, "start_step": 4, "warmup_steps": 2, "lr": 0.1},
        "optim": {"lr": 1.0, "schedule": "constant", "warmup_steps": 8},
        "train": {"steps": 10},
    }
    schedule = Schedule(parse_config(sections, "here"))
    assert [schedule(step).perceptual_weight for step in range(6)] == [0, 0, 1, 2, 3, 3]
    assert [schedule(step).adversarial_weight for step in range(2, 7)] == [None, None, 1, 2, 2]
    assert [schedule(step).discriminator_lr for step in (3, 4, 9)] == [None, 0.1 * 5 / 8, 0.1]
    assert "adversarial_weight" not in schedule(3).logged()
    assert [schedule(step).shape for step in schedule.turns] == [(1, False), (1, True)]
    assert schedule.turns == [0, 4]


LONGER_THAN_THE_RUN = [
    (
        "optim",
        {"warmup_steps": 10},
        r"optim.warmup_steps 10 is no less than train.steps 10: .* only rises, to 0.002 of",
    ),
    ("optim", {"warmup_steps": 40, "schedule": "constant"}, r"only rises, to 0.0005 of optim.lr 0.002 at the end"),
    ("objective", {"warmup_steps": 20, "beta": 4}, "the rate's weight only rises, to 2 of objective.beta 4 at the end"),
    ("objective", {"final_samples": 5, "final_from": 0.95}, "final_samples 5 is for steps after .* and there are none"),
]


@pytest.mark.parametrize(("section", "settings", "expected"), LONGER_THAN_THE_RUN)
def test_a_schedule_longer_than_the_run_is_a_warning_at_its_start(
    tmp_path: Path, section: str, settings: dict[str, Any], expected: str
) -> None:
    sections: dict[str, Any] = {"optim": {"lr": 0.002}, "model": {"h_dim": 8}, "train": {"steps": 10, "threads": 1}}
    sections[section] = sections.get(section, {}) | settings
    images = torch.randint(0, 256, (144, 1, 4, 4), dtype=torch.uint8)
    with pytest.warns(UserWarning, match=expected):
        train(Config.model_validate(sections), tmp_path / "run", data=images)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"optim": {"warmup_steps": 9}, "objective": {"warmup_steps": 9, "final_samples": 5, "final_from": 0.9}},
        {"objective": {"beta": 0, "warmup_steps": 10}},  # there is no weight to reach
    ],
)
def test_a_schedule_that_fits_into_the_run_is_no_warning(sections: dict[str, dict[str, float]]) -> None:
    assert Schedule(Config.model_validate(sections | {"train": {"steps": 10}})).warnings() == []
