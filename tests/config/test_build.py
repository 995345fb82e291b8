import pytest
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, ProgressBar, TQDMProgressBar

from fashion_hydra.config.build import make_trainer
from fashion_hydra.config.compose import compose_options
from tests.helpers import SMALL_TRAIN


@pytest.mark.parametrize(
    ("option", "kind"), [("enable_progress_bar", ProgressBar), ("enable_checkpointing", Checkpoint)]
)
def test_lightnings_switches_leave_configured_callbacks_out(tmp_path, option, kind):
    options = compose_options("train", *SMALL_TRAIN, f"trainer.{option}=false", f"paths.output_dir={tmp_path}")
    callbacks = [TQDMProgressBar(), ModelCheckpoint(dirpath=tmp_path)]
    trainer = make_trainer(options.trainer, callbacks=callbacks, logger=False)
    assert [c for c in trainer.callbacks if c in callbacks] == [c for c in callbacks if not isinstance(c, kind)]
