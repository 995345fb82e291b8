"""Train what a user would run instead of this package, on the same photos and for as many minutes.

    python -m benchmarks.rivals DATA mask_rcnn --minutes 80 --out predictions/rivals/mask_rcnn
    python tune_thresholds.py candidates.folder=predictions/rivals/mask_rcnn/val out=tuned/rivals/mask_rcnn
    fashion-hydra compare tuned/rivals/mask_rcnn predictions/rivals/mask_rcnn/test_fold

The rivals are mmdet's Mask R-CNN and Cascade Mask R-CNN, trained by mmengine's Runner on photos that mmdet's
CocoDataset reads, and torchvision's Mask R-CNN, trained as torchvision's reference scripts do on photos that our
loader reads. Heads, losses, proposals, optimizer and schedule are theirs. From `experiment=street` come the backbone
(EfficientNet-Lite0 with ImageNet weights), the folds, the sizes, windows and flips of photos, and 8 photos per step.
Photos are predicted in one view at the size of `experiment=street`, and candidates are written as predict.py does, so
that any thresholds can be applied: the library's own, the winner's, or tuned ones. Mask R-CNN regresses a box for each
class; a proposal gets the box of its most probable class. The libraries' heads are wide and sample 512 boxes per photo,
which is slow on a CPU; with `--narrow` they are as wide as ours and sample as many boxes.
"""

import argparse
import math
import time
from pathlib import Path

import torch
from tqdm import trange

from benchmarks._mmdet_rivals import CONFIGS, MMDetRival
from benchmarks._rival import Budget, Rival, Setting
from benchmarks._torchvision_rival import TorchvisionRival
from fashion_hydra.config.build import make_datamodule, plain
from fashion_hydra.config.compose import compose_options
from fashion_hydra.config.entry_point import prepare_config
from fashion_hydra.data.augment import checked_scales
from fashion_hydra.data.datamodule import FashionDataModule
from fashion_hydra.data.dataset import PredictDataset
from fashion_hydra.data.ground_truth import truth_on_grid
from fashion_hydra.data.image_list import list_annotated
from fashion_hydra.evaluation import coco_ap
from fashion_hydra.evaluation.annotated import true_masks
from fashion_hydra.formats.submission import SUBMISSION_SIZE, write_truth
from fashion_hydra.inference.cached_images import ImageFiles
from fashion_hydra.inference.candidate_cache import CandidateCache
from fashion_hydra.inference.cascade import CascadeDetector, merge_sources
from fashion_hydra.inference.manifest import Manifest
from fashion_hydra.inference.merging import Merging
from fashion_hydra.model.builder import build_detector
from fashion_hydra.postprocess.apply import apply
from fashion_hydra.postprocess.rule import COCO_RULE
from fashion_hydra.structures.detections import Detections
from fashion_hydra.training.console import silence_library_noise
from fashion_hydra.utils.files import file_sha256

RIVALS = (*CONFIGS, "torchvision")
TIMED = (3, 12)
"""Steps that are run first to plan the number of epochs: skipped and timed."""


def predict(detector: CascadeDetector, data: FashionDataModule, folder: Path, checkpoint: Path) -> None:
    """Write candidates and truth of the validation images and the test fold as predict.py does; print AP of both."""
    options = compose_options("predict", f"out={folder}").candidates
    for name, chosen in (("val", data.is_validation), ("test_fold", data.is_test)):
        indices = chosen.nonzero()[0]
        images = list_annotated(data.annotations, indices)
        manifest = Manifest(
            members=((checkpoint.name, file_sha256(checkpoint)),),
            class_ids=data.classes.ids,
            class_names=data.classes.names,
            scales=(data.eval_scale,),
            flips=(False,),
            proposal_iou_thr=Merging().proposal_iou_thr,
            max_proposals=Merging().max_proposals,
            precision="32-true",
            score_floor=options.score_floor,
            iou_grid=tuple(options.iou_grid),
        )
        listed = ImageFiles(str(images.folder.absolute()), images.file_sizes())
        cache = CandidateCache(folder / name / "candidates", manifest, listed)
        found: dict[str, Detections] = {}
        dataset = PredictDataset(images, [data.eval_scale])
        for i in trange(len(dataset), desc=name):
            scaled = dataset[i]
            for_rules, for_ap = (
                merge_sources([detector], scaled, rules, Merging(), device=torch.device("cpu"))
                for rules in (manifest.rules(), [COCO_RULE])
            )
            cache.write(for_rules)
            found[for_ap.image_id] = apply(for_ap, COCO_RULE, size=for_ap.size)
        truth = {
            str(data.annotations.image_ids[i]): list(true_masks(data.annotations, i, data.classes))
            for i in indices.tolist()
        }
        write_truth(folder / name / "truth.csv", truth_on_grid(data.annotations, indices, size=SUBMISSION_SIZE))
        ap = coco_ap.mask_ap(truth, found, labels=len(data.classes)).overall
        print(f"{name:10} AP {ap['AP']:.3f}  AP50 {ap['AP50']:.3f}  AP75 {ap['AP75']:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of the data set, in Kaggle's layout")
    parser.add_argument("rival", choices=RIVALS)
    parser.add_argument("--minutes", type=float, default=80, help="train for the number of epochs that take this long")
    parser.add_argument("--epochs", type=int, help="train for this number of epochs instead")
    parser.add_argument("--optimizer", choices=("sgd", "adamw"), default="sgd", help="theirs, or that of our recipe")
    parser.add_argument("--narrow", action="store_true", help="with the widths and numbers of boxes of our model")
    parser.add_argument("--out", type=Path, required=True, help="folder for the weights and the candidates")
    parser.add_argument("options", nargs="*", help="options of experiment=street that differ")
    args = parser.parse_intermixed_args()
    if args.out.exists():
        parser.error(f"--out {args.out}: exists already. Give another folder, or delete it")
    silence_library_noise()
    prepare_config()
    options = compose_options(
        "train", "experiment=street", f"paths.output_dir={args.out}", f"data.root={args.data}", *args.options
    )
    augment, images = options.augment, int(options.schedule.batch)
    options.data.batch_size = images
    options.data.repeat_threshold, augment.photometric = None, []  # as in mmdet's and torchvision's defaults
    scale = checked_scales(options.tta.scales)[0]
    data = make_datamodule(options.data, options.classes, augment, eval_scale=scale, seed=0, report_dir=None)
    classes = data.read()
    print(f"data       {data.describe()}")
    args.out.mkdir(parents=True, exist_ok=True)
    model = plain(options.model)
    ours = build_detector(model, num_classes=len(classes))
    setting = Setting(data, augment, model, ours, args.narrow, args.optimizer, args.out)
    rival: Rival = TorchvisionRival(setting) if args.rival == "torchvision" else MMDetRival(args.rival, setting)
    epochs = args.epochs
    if epochs is None:
        ends = rival.train(rival.start(), Budget(steps=sum(TIMED)))
        step = (ends[-1] - ends[TIMED[0] - 1]) / TIMED[1]
        epochs = max(1, int(args.minutes * 60 / step / math.ceil(data.is_training.sum() / images)))
        print(f"plan       {step:.2f} s per step of {images} photos: {epochs} epochs in {args.minutes:g} minutes")
    net, begin = rival.start(), time.perf_counter()
    ends = rival.train(net, Budget(epochs=epochs))
    print(f"trained    {epochs} epochs, {len(ends)} steps, {(time.perf_counter() - begin) / 60:.1f} minutes")
    checkpoint = args.out / "weights.pt"
    torch.save(net.state_dict(), checkpoint)
    predict(rival.detector(net), data, args.out, checkpoint)
    print(f"next       python tune_thresholds.py candidates.folder={args.out / 'val'} out={args.out / 'tuned'}")
    print(f"           fashion-hydra compare {args.out / 'tuned'} {args.out / 'test_fold'}")


if __name__ == "__main__":
    main()
