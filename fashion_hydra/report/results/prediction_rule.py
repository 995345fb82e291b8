"""Read the postprocessing rule of a prediction."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fashion_hydra.data.class_set import ClassSet, named_categories
from fashion_hydra.postprocess.rule import Postprocess
from fashion_hydra.postprocess.rule_files import IN_FORCE, fill_in, rule_of
from fashion_hydra.postprocess.rule_options import build_rule
from fashion_hydra.training.run_folder import saved_config
from fashion_hydra.utils.yaml_files import value_at


def rule_in_force(folder: Path, classes: ClassSet, members: Sequence[tuple[str, str]]) -> Postprocess | None:
    """Return the rule of a prediction; None if its folder does not record the rule.

    Folders from before predict.py wrote rule files have the rule's options in their saved config.

    Args:
        folder: folder written by predict.py.
        classes: class set of the candidates' labels.
        members: name and SHA-256 of each checkpoint.

    Raises:
        UserError: the rule file or the saved config is damaged.
    """
    if (folder / IN_FORCE).is_file():
        return rule_of(folder / IN_FORCE, classes)
    config = saved_config(folder)
    if not isinstance(options := value_at(config, "postprocess"), dict):
        return None
    dropped = named_categories(value_at(config, "classes.drop") or [], classes, "classes.drop")
    tuned = Path(str(value_at(config, "paths.tuned") or "tuned"))
    return build_rule(fill_in(options, members, tuned), replace(classes, drop=dropped))
