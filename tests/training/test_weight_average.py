import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from fashion_hydra.training.callbacks import WeightAverage
from fashion_hydra.utils.errors import UserError


def test_the_average_is_the_formulas():
    """The tensors of PyTorch's AveragedModel are compared with the formula applied to numbers."""
    average = WeightAverage(decay=0.6)
    model = torch.nn.BatchNorm1d(1)
    kept = AveragedModel(model, use_buffers=True, multi_avg_fn=average._update)
    expected = None
    for n, value in enumerate([3.0, -1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0, 9.0]):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(-value)
            model.num_batches_tracked.fill_(n)
        kept.update_parameters(model)
        decay = min(0.6, (1 + n) / (10 + n))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        assert kept.module.weight.item() == pytest.approx(expected, rel=1e-6)
        assert kept.module.running_mean.item() == pytest.approx(-expected, rel=1e-6)
        assert kept.module.num_batches_tracked.item() == n


def test_a_short_run_forgets_where_it_began():
    """After 200 steps, a fixed decay of 0.998 would still contain 67 % of the initial weights."""
    left = 1.0
    for n in range(1, 200):
        left *= WeightAverage(decay=0.998).decay_after(n)
    assert left < 1e-9


@pytest.mark.parametrize("decay", [-0.1, 1.0, 2.0])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(UserError, match=rf"callbacks\.ema\.decay={decay}: must be at least 0 and below 1"):
        WeightAverage(decay=decay)
