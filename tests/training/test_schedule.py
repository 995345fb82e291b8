import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CosineAnnealingWarmRestarts, LinearLR, MultiStepLR, OneCycleLR

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


@pytest.mark.parametrize(("epochs", "cycles"), [(3, 3), (4, 2)])
def test_cycles_are_torchs_warm_restarts(epochs, cycles):
    schedule = Schedule(epochs=epochs, lr=1, warmup_steps=0, decay="cosine", cycles=cycles)
    mine = [schedule.factor(step, steps_per_epoch=10) for step in range(10 * epochs)]
    theirs = torch_factors(lambda o: [CosineAnnealingWarmRestarts(o, 10 * epochs // cycles)], 10 * epochs)
    assert mine == pytest.approx(theirs, abs=1e-9)
    assert schedule.factor(10 * epochs, 10) == 0


def test_linear_is_torchs():
    schedule = Schedule(epochs=3, lr=1, warmup_steps=0, decay="linear")
    mine = [schedule.factor(step, steps_per_epoch=10) for step in range(30)]
    theirs = torch_factors(lambda o: [LinearLR(o, start_factor=1, end_factor=0, total_iters=30)], 30)
    assert mine == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize(("epochs", "steps"), [(3, 10), (1, 7), (2, 50)])
def test_one_cycle_is_torchs(epochs, steps):
    schedule = Schedule(epochs=epochs, lr=1, warmup_steps=5, decay="onecycle")
    total = epochs * steps
    mine = [schedule.factor(step, steps_per_epoch=steps) for step in range(total)]
    theirs = torch_factors(lambda o: [OneCycleLR(o, max_lr=1.0, total_steps=total)], total)
    assert mine == pytest.approx(theirs, abs=1e-9)
    assert schedule.factor(total + 5, steps) == mine[-1]


@pytest.mark.parametrize("decay", ["onecycle", "linear", "constant", "cosine"])
def test_a_schedule_of_one_step_is_finite(decay):
    schedule = Schedule(epochs=1, lr=1, warmup_steps=0, decay=decay)
    assert 0 <= schedule.factor(0, 1) <= 1
    assert 0 <= schedule.factor(1, 1) <= 1


def test_a_constant_rate_warms_up_and_stays():
    schedule = Schedule(epochs=3, lr=1, warmup_steps=4, warmup_ratio=0.5, decay="constant")
    assert [schedule.factor(step, 10) for step in (0, 2, 4, 29)] == [0.5, 0.75, 1, 1]


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
