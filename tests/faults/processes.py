"""Kill one of two training processes, and check how soon the other exits, what it prints, and what is saved.

    python -m tests.faults.processes

This takes three minutes on two cores.
"""

import random
import re
import tempfile
import time
from pathlib import Path

from tests.faults.training import Place, differences, state

TWO = ["trainer=cpu", "trainer.log_every_n_steps=1", "data.batch_size=2", "data.num_workers=1"]
# moment, signal, rank of the process, exit code of the command, expected output
CASES = [
    ("validation step", "SIGTERM", 0, 143, r"stopped        SIGTERM after step"),
    ("forward pass", "SIGKILL", 1, 2, r"process 1 was killed \(SIGKILL, possibly out of memory\)"),
    ("validation step", "SIGKILL", 1, 2, r"process 1 was killed \(SIGKILL"),
    ("forward pass", "SIGKILL", 0, -9, r"process 0 is gone, so the other processes were ended"),
    ("forward pass", "SIGTERM", 0, 143, r"stopped        SIGTERM after step"),
]


def main() -> None:
    """Inject faults, compare the results, print the table."""
    from fashion_hydra.wardrobe import write_wardrobe

    rng = random.Random(0)
    print(f"{'fault':<40}{'ended after':>12}{'exit':>6}   lost work", flush=True)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        data = Path(folder, "data")
        write_wardrobe(data, train=32, test=2, size=128, seed=5)
        quiet = Place(Path(folder, "quiet"), data)
        done = quiet.command("", *TWO)
        assert done.returncode == 0, done.stderr[-2000:]
        place = Place(Path(folder, "harmed"), data)
        for moment, number, process, code, message in CASES:
            done = place.command(f"{moment}:{rng.randint(2, 3)}:{number}:{process}", *TWO)
            seconds = time.time() - (place.folder / "harmed").stat().st_mtime
            assert done.returncode == code, (moment, number, process, done.returncode, done.stderr[-3000:])
            assert re.search(message, done.stdout + done.stderr), done.stderr[-3000:]
            assert "Traceback" not in done.stderr, done.stderr[-3000:]
            lost = place.done() - place.saved()
            print(
                f"{f'{number} to process {process}, {moment}':<40}{seconds:>10.1f} s{code:>6}   {lost} steps",
                flush=True,
            )
        done = place.command("", *TWO)
        assert done.returncode == 0, done.stderr[-2000:]
        one, other = quiet.last(), place.last()
        assert one is not None and other is not None
        assert (found := differences(state(one), state(other))) == [], found[:5]
    print("the next command went on each time, and ended with the uninterrupted run's state, to the last bit")


if __name__ == "__main__":
    main()
