"""`python -m verifier`: the same as the command."""

import sys

from verifier.cli import main

if __name__ == "__main__":
    sys.exit(main())
