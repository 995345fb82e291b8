import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, MultiStepLR

from fashion_hydra.training.schedule import Schedule
from fashion_hydra.utils.errors import UserError


def torch_factors(make, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedulers = make(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()
    return factors


def test_warm_up_and_steps_are_those_of_torchs_schedulers():
    schedule = Schedule(epochs=4, lr=1, warmup_steps=7, milestones=[2, 3])
    mine = [schedule.factor(step, steps_per_epoch=10) for step in range(40)]
    theirs = torch_factors(
        lambda o: [LinearLR(o, start_factor=1 / 3, total_iters=7), MultiStepLR(o, [20, 30], gamma=0.1)], 40
    )
    assert mine == pytest.approx(theirs)


def test_cosine_is_torchs():
    schedule = Schedule(epochs=3, lr=1, warmup_steps=0, decay="cosine")
    mine = [schedule.factor(step, steps_per_epoch=10) for step in range(30)]
    assert mine == pytest.approx(torch_factors(lambda o: [CosineAnnealingLR(o, 30)], 30), abs=1e-9)


def test_the_winners_recipe():
    schedule = Schedule(epochs=20, lr=0.03, warmup_steps=500, milestones=[10, 18])
    per_epoch = 2822
    assert schedule.factor(0, per_epoch) == pytest.approx(1 / 3)
    assert [schedule.factor(e * per_epoch, per_epoch) for e in (1, 9, 10, 17, 18)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01]
    )
    assert schedule.scaled_lr(16) == 0.03
    assert schedule.scaled_lr(4) == pytest.approx(0.0075)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0, "lr": 1}, {"epochs": 1, "lr": 0}, {"epochs": 1, "lr": 1, "decay": "poly"}]
)
def test_wrong_schedules_are_refused(wrong):
    with pytest.raises(UserError, match="schedule"):
        Schedule(**wrong)
