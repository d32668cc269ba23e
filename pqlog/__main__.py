"""``python -m pqlog`` is the command ``pqlog``."""

from pqlog.cli import main

if __name__ == "__main__":
    main()
