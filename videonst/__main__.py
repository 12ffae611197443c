"""`python -m videonst`."""

from videonst.cli import main

if __name__ == "__main__":
    main()
