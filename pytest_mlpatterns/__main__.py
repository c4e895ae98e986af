"""``python -m pytest_mlpatterns``: see :mod:`pytest_mlpatterns.cli`."""

import sys

from pytest_mlpatterns.cli import main

if __name__ == "__main__":
    sys.exit(main())
