"""`python -m fashion_hydra.cli` is `fashion-hydra`."""

import sys

from fashion_hydra.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
