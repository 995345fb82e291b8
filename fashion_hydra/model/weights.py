"""Reading weights from files without unpickling anything."""

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from fashion_hydra.errors import UserError


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill a backbone from a safetensors file that uses mmdet's names; float16 is widened.

    Args:
        backbone: mmdet's module.
        path: the file.

    Raises:
        UserError: the file is missing, is no safetensors file, or does not fit the backbone.
    """
    if not path.is_file():
        raise UserError(
            f"model.backbone.weights={path}: no such file. Give a safetensors file, "
            "or model.backbone.weights=null to train from scratch"
        )
    try:
        state = {name: value.float() for name, value in load_file(path).items()}
    except Exception as error:  # the reader has no exception of its own that all versions share
        raise UserError(f"model.backbone.weights={path}: not a readable safetensors file ({error})") from error
    own = backbone.state_dict()
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in state.keys() & own.keys()
        if state[name].shape != own[name].shape
    ]
    wrong += [f"{name} unknown" for name in state.keys() - own.keys()]
    wrong += [f"{name} missing" for name in own.keys() - state.keys() if not name.endswith("num_batches_tracked")]
    if wrong:
        raise UserError(
            f"model.backbone.weights={path}: does not fit the backbone in {len(wrong)} places, such as {min(wrong)}; "
            "choose the model/backbone that the file was made for"
        )
    backbone.load_state_dict(state, strict=False)
