"""`python -m mien` is the command line."""

from mien.cli import main

if __name__ == "__main__":  # a process of its own (`mien annotate`) imports this file too
    main()
