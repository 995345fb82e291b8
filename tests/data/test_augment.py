import pytest

from fashion_hydra.data.augment import checked_scales
from fashion_hydra.utils.errors import UserError


@pytest.mark.parametrize("scales", [[], [[64]], [[0, 0]], [[128, 64]], [[64, 128, 256]]])
def test_scales_are_pairs_of_edges(scales):
    with pytest.raises(UserError, match=r"tta\.scales="):
        checked_scales(scales)
    assert checked_scales([[64, 128]]) == ((64, 128),)
