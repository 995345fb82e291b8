"""Run `fashion-hydra` as `python -m fashion_hydra.cli`."""

import sys

from fashion_hydra.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
