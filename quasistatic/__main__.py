"""``python -m quasistatic`` is the ``quasistatic`` command."""

from quasistatic.cli import main

if __name__ == "__main__":
    main()
