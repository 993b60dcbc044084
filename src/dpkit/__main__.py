"""`python -m dpkit`."""

from dpkit.cli import main

if __name__ == "__main__":
    main()
