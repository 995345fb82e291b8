"""Which checkpoints of a run are kept."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.demos.boring_classes import BoringModel

from fashion_hydra.training.callbacks import LaterModelCheckpoint


class Scored(BoringModel):
    """Log a given score in each epoch's validation."""

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def validation_step(self, batch, batch_idx):
        self.log("score", self.scores[self.current_epoch])


def epoch_of(path):
    return int(Path(path).stem.removeprefix("epoch="))


def kept(folder, kind, scores, mode="max"):
    """Return the best epoch of a training with these scores, and the epochs of the checkpoints that it leaves."""
    callback = kind(folder, filename="{epoch}", monitor="score", mode=mode, save_top_k=2, save_on_train_epoch_end=False)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    limits = {"max_epochs": len(scores), "limit_train_batches": 1, "limit_val_batches": 1}
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[callback], **quiet, **limits)
    trainer.fit(Scored(scores))
    return epoch_of(callback.best_model_path), sorted(map(epoch_of, folder.glob("*.ckpt")))


@pytest.mark.parametrize(
    ("scores", "best", "expected"),
    [([0.0, 0.0, 0.0, 0.0], 3, [2, 3]), ([0.5, 0.2, 0.2, 0.1], 0, [0, 2]), ([0.1, 0.3, 0.3, 0.3], 3, [2, 3])],
)
@pytest.mark.parametrize("mode", ["max", "min"])
def test_of_equal_scores_the_later_stays(tmp_path, scores, best, expected, mode):
    signed = scores if mode == "max" else [-score for score in scores]
    assert kept(tmp_path, LaterModelCheckpoint, signed, mode) == (best, expected)


@pytest.mark.parametrize("scores", [[0.1, 0.4, 0.2, 0.3], [0.4, 0.3, 0.2, 0.1], [0.2, float("nan"), 0.3, 0.1]])
def test_of_different_scores_lightnings_stay(tmp_path, scores):
    ours = kept(tmp_path / "ours", LaterModelCheckpoint, scores)
    assert ours == kept(tmp_path / "theirs", ModelCheckpoint, scores)


def test_a_run_resumes_with_lightnings_state(tmp_path):
    assert LaterModelCheckpoint(tmp_path, monitor="a").state_key == ModelCheckpoint(tmp_path, monitor="a").state_key
