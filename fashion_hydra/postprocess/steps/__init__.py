"""Steps of postprocessing that a user adds: a module here with a function `step` is a name for `postprocess.steps`.

A step gets an image's masks as they were drawn, the best first, before those of a class are kept from overlapping, and
gives the masks that go on, by descending score.
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
    """The step of that name.

    Raises:
        UserError: there is none.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise UserError(f"postprocess.steps: no step {name!r}; there are {', '.join(known)}")
    step: Step = importlib.import_module(f"{__name__}.{name}").step
    return step
