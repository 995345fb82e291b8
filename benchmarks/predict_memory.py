"""Resident memory of predict.py after 20 images and after 200: it must not grow with the number of images."""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.ensemble import decided_model, options
from fashion_hydra.data.wardrobe import write_wardrobe

PROJECT = Path(__file__).parents[1]


def resident(process: int) -> float:
    """MiB in memory."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def random_checkpoint(path: Path) -> Path:
    """What train.py would have written, without the training."""
    arguments = options(depth=18, base_channels=16)
    model = decided_model(0, arguments)
    content = {
        "state_dict": {f"detector.{name}": value for name, value in model.state_dict().items()},
        "classes": {"ids": list(range(46)), "names": [f"category {i}" for i in range(46)]},
        "model": {"_target_": "fashion_hydra.model.htc.build_htc", **arguments},
        "eval_scale": [128, 192],
    }
    torch.save(content, path)
    return path


def main() -> None:
    """Predict and look on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, help="default: a small model with random weights")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--first", type=int, default=20, help="images before the first look")
    args = parser.parse_args()
    looks: dict[int, float] = {}
    answering = 0.0
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "wardrobe", Path(folder) / "out"
        checkpoint = args.checkpoint or random_checkpoint(Path(folder) / "random.ckpt")
        write_wardrobe(root, train=8, test=args.images, size=224, seed=0)
        command = [sys.executable, str(PROJECT / "predict.py"), f"checkpoint={checkpoint.absolute()}"]
        command += [f"data.root={root}", f"out={out}", "tta=multi", "trainer.accelerator=cpu", "data.num_workers=0"]
        command += ["candidates.score_floor=0.2"]
        process = subprocess.Popen(command)
        while process.poll() is None:
            done = len(list(out.glob("candidates/images/[!.]*.npz")))
            memory = resident(process.pid)  # 0 once it has ended
            if args.first <= done < args.images and memory:
                looks[done] = memory
            elif done == args.images:
                answering = max(answering, memory)
            time.sleep(0.05)
    assert process.returncode == 0
    for done in sorted(looks):
        if done == min(looks) or done == max(looks) or done % 20 == 0:
            print(f"{done:5d} images    {looks[done]:8.1f} MiB")
    print(f"while answering {answering:8.1f} MiB")
    first, last = looks[min(looks)], looks[max(looks)]
    print(
        f"ours: from image {min(looks)} to {max(looks)} {last / first - 1:+.1%}, answering {answering / first - 1:+.1%}"
    )


if __name__ == "__main__":
    main()
