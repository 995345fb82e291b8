"""Dataclass schemas of the config groups: the options and their types.

conf/ has the values and their descriptions; the class that uses a value checks its range (between 0 and 1, above 0).
A field without a default must get its value from conf/ or the command line. This module imports no heavy library, so
that `--help` and a mistyped option respond at once.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from fashion_hydra.config.places import CONF
from fashion_hydra.config.trainer_schema import OPTIMIZERS, TrainerConfig

Entry = Any
"""A category, given by id or by name."""


@dataclass
class PathsConfig:
    """Paths of the project and of outputs."""

    project: str = MISSING
    runs: str = MISSING
    tuned: str = MISSING
    output_dir: str = MISSING


@dataclass
class DataConfig:
    """Images with masks for training."""

    format: str = MISSING
    root: str = MISSING
    annotations: str | None = None
    val_annotations: str | None = None
    crowd: str = "ignore"
    folds: int = MISSING
    fold: int = MISSING
    test_fold: int | None = None
    split_seed: int = MISSING
    split_file: str | None = None
    batch_size: int | None = None
    num_workers: int | None = None
    repeat_threshold: float | None = None
    on_fault: str = MISSING


@dataclass
class ClassesConfig:
    """Classes to learn, and classes to omit from submissions."""

    name: str = MISSING
    train: Any = MISSING  # all | present | list of entries
    drop: list[Entry] = field(default_factory=list)


@dataclass
class AugmentConfig:
    """Augmentation of training images."""

    short_edge: list[int] = MISSING
    long_edge: int = MISSING
    flip: float = MISSING
    photometric_on: str = MISSING
    mask_sampling: str = MISSING
    crop: list[int] | None = None
    crop_keeps: float = 0.1
    copy_paste: float = 0.0
    isolate: float = 0.0
    photometric: list[dict[str, Any]] = field(default_factory=list)
    geometric: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class HTCConfig:
    """Arguments of `fashion_hydra.model.htc.build_htc`; the arguments of mmdet's backbone are not typed."""

    _target_: str = MISSING
    backbone: Any = MISSING
    neck_channels: int = MISSING
    fc_channels: int = MISSING
    mask_channels: int = MISSING
    mask_convs: int = MISSING
    mask_roi_size: int = MISSING
    anchor_scale: float = MISSING
    anchor_ratios: list[float] = MISSING
    rpn_batch: int = MISSING
    train_proposals: int = MISSING
    test_proposals: int = MISSING
    proposal_iou_thr: float = MISSING
    rois_per_stage: int = MISSING
    stage_ious: list[float] = MISSING
    stage_weights: list[float] = MISSING
    roi_sampling_ratio: int = MISSING
    norm: str | None = None
    gradient_checkpointing: bool = MISSING
    semantic_convs: int = 0
    semantic_weight: float = 0.2
    attributes: bool = False
    attribute_loss: str = "bce"
    attribute_weight: float = 0.5
    mask_scoring: bool = False
    mask_refinements: int = 0
    box_loss: str = "smooth_l1"
    class_loss: str = "cross_entropy"
    dice_weight: float = 0.0


@dataclass
class ScheduleConfig:
    """Epochs, learning rate, optimizer."""

    epochs: int = MISSING
    batch: int | None = None
    lr: float = MISSING
    base_batch: int = MISSING
    warmup_steps: int = MISSING
    warmup_ratio: float = MISSING
    decay: str = MISSING
    milestones: list[int] = field(default_factory=list)
    gamma: float = 0.1
    cycles: int = 1
    backbone_lr: float = 1.0
    layer_decay: float = 1.0
    decay_norms: bool = True
    train_only: list[str] | None = None
    gradient_clip: float | None = None
    skip_nonfinite: int = MISSING
    optimizer: Any = None


@dataclass
class TTAConfig:
    """Views of an image: scales and flips."""

    scales: list[list[int]] | None = MISSING
    factors: list[float] | None = None
    flips: list[bool] = MISSING


@dataclass
class PostprocessConfig:
    """Thresholds. With `postprocess=tuned`, every option except `file` is null until the file has been read."""

    file: str | None = None
    otherwise: dict[str, Any] | None = None
    score_thr: float | None = None
    class_score_thr: Any = None  # entry -> threshold
    drop_classes: list[Entry] | None = None
    nms: str | None = None
    iou_thr: float | None = None
    soft_nms_sigma: float | None = None
    max_per_image: int | None = None
    mask_thr: float | None = None
    mask_iou_power: float | None = None
    mask_certainty_power: float | None = None
    suppress_overlaps: bool | None = None
    steps: list[str] | None = None
    min_area: int | None = None
    select: str | None = None
    calibration: str | None = None
    attributes: str | None = None
    attribute_thr: float | None = None
    match_thr: float | None = None


@dataclass
class ScoreConfig:
    """Definition of a hit, and pooling of the classes of an image."""

    match: str | None = None
    pooling: str = "class"


@dataclass
class TrainConfig:
    """All options of train.py."""

    name: str = MISSING
    seed: int = MISSING
    weights: str | None = None
    weights_sha256: str | None = None
    ckpt_path: str | None = None
    traceback: bool = False
    paths: PathsConfig = field(default_factory=PathsConfig)
    data: DataConfig = field(default_factory=DataConfig)
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: Any = None
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    tta: TTAConfig = field(default_factory=TTAConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)


@dataclass
class EnsembleConfig:
    """Checkpoints that form the ensemble."""

    members: list[str] = field(default_factory=list)
    run: str | None = None
    count: int = MISSING
    soup_batches: int | None = None
    weights: list[float] | None = None


@dataclass
class ImagesConfig:
    """Images to predict."""

    root: str | None = None
    recursive: bool = False
    images: str = MISSING
    limit: int | None = None
    num_workers: int = MISSING


@dataclass
class InferenceConfig:
    """Merging of the sources, and storage of their features until then."""

    proposal_iou_thr: float = MISSING
    max_proposals: int = MISSING
    mask_grid: int | None = MISSING
    feature_cache: str = MISSING
    in_flight: int = MISSING


@dataclass
class CandidatesConfig:
    """Candidates kept for each image before thresholding."""

    score_floor: float = MISSING
    iou_grid: list[float] = MISSING
    folder: str | None = None


@dataclass
class RungConfig:
    """Title and leaderboard score of a rung of the ladder."""

    title: str = MISSING
    leaderboard: float | None = None


@dataclass
class PredictConfig:
    """All options of predict.py."""

    checkpoint: str | None = None
    trust: list[str] = field(default_factory=list)
    output: Any = MISSING  # a format, or a list of them
    draw: bool = MISSING
    out: str = MISSING
    traceback: bool = False
    data: ImagesConfig = field(default_factory=ImagesConfig)
    paths: PathsConfig = field(default_factory=PathsConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    tta: TTAConfig = field(default_factory=TTAConfig)
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    postprocess: PostprocessConfig = field(default_factory=PostprocessConfig)
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    callbacks: dict[str, Any] = field(default_factory=dict)
    rung: RungConfig | None = None


@dataclass
class GridConfig:
    """Values of the threshold grid."""

    score_thr: list[float] = MISSING
    iou_thr: list[float] = MISSING
    mask_thr: list[float] = MISSING
    min_area: list[int] = MISSING
    max_per_image: list[int] = MISSING
    mask_certainty_power: list[float] = MISSING
    drop: list[str] = MISSING


@dataclass
class SearchConfig:
    """Ranges of the Optuna search."""

    trials: int = MISSING
    score_thr: list[float] = MISSING
    mask_thr: list[float] = MISSING
    mask_step: float = MISSING
    min_area: list[int] = MISSING
    max_per_image: list[int] = MISSING


@dataclass
class PerClassConfig:
    """Tuning of one threshold per class."""

    step: float = MISSING
    shrinkage: float = MISSING


@dataclass
class ExpectedConfig:
    """Selection of the detections with the highest expected score."""

    weight: float = MISSING


@dataclass
class AttributesConfig:
    """Candidate values of the attribute thresholds."""

    attribute_thr: list[float] = MISSING
    match_thr: list[float] = MISSING


@dataclass
class TuneConfig(PredictConfig):
    """All options of tune_thresholds.py."""

    truth: str | None = None
    score: ScoreConfig = field(default_factory=ScoreConfig)
    folds: int = MISSING
    seed: int = MISSING
    winners: PostprocessConfig = field(default_factory=PostprocessConfig)
    removal: dict[str, Any] = field(default_factory=dict)  # name -> ClassesConfig, of which only drop is used
    grid: GridConfig = field(default_factory=GridConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    per_class: PerClassConfig = field(default_factory=PerClassConfig)
    attributes: AttributesConfig = field(default_factory=AttributesConfig)
    expected: ExpectedConfig = field(default_factory=ExpectedConfig)


SCRIPTS: dict[str, type] = {"train": TrainConfig, "predict": PredictConfig, "tune": TuneConfig}
"""Name of the main config in conf/ -> its schema."""


def register_schemas() -> None:
    """Register the schemas with Hydra: `NAME_schema` of each script, `schema/model`, and optimizers by name."""
    store = ConfigStore.instance()
    # Hydra copies the store for each composition and, in --help, for each group, but it only reads the copies.
    ConfigStore.__deepcopy__ = lambda store, memo: store  # type: ignore[attr-defined]
    for name, schema in SCRIPTS.items():
        store.store(name=f"{name}_schema", node=schema)
    store.store(group="schema/model", name="htc", node=HTCConfig)
    for name, optimizer in OPTIMIZERS.items():
        store.store(group="schema/optimizer", name=name, node=optimizer)
        if not (CONF / "schedule" / "optimizer" / f"{name}.yaml").is_file():  # conf/ has optimizers with other defaults
            store.store(group="schedule/optimizer", name=name, node=optimizer)
