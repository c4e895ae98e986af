"""``python -m pytest_mlpatterns``: see :mod:`pytest_mlpatterns.cli`."""

import sys

from pytest_mlpatterns.errors import SettingError, check_system

if __name__ == "__main__":
    try:
        check_system()
    except SettingError as _error:
        sys.exit(f"ERROR: {_error}")
    from pytest_mlpatterns.cli import main

    sys.exit(main())
