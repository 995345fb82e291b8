"""Optional postprocessing steps: `postprocess.steps=[NAME]` runs the function `step` of the module NAME in this folder.

A step gets an image's drawn masks, by descending score, before overlaps within a class are suppressed. It returns the
masks to keep, by descending score.
"""

import functools
import importlib
import pkgutil
from collections.abc import Callable

from fashion_hydra.structures.batch import Size
from fashion_hydra.structures.paste import ScoredMask
from fashion_hydra.utils.errors import UserError

Step = Callable[[list[ScoredMask], Size], list[ScoredMask]]


@functools.cache
def load(name: str) -> Step:
    """Import a step by name.

    Raises:
        UserError: there is no step of that name.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"postprocess.steps: no step {name!r}; there are {', '.join(known)}")
    step: Step = importlib.import_module(f"{__name__}.{name}").step
    return step
