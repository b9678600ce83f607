"""`python -m rnnprune`."""

from rnnprune.cli import main

if __name__ == "__main__":
    main()
