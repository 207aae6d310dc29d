"""Finds the lungs on chest films and writes the dataset JSON: python create_dataset.py --src DIR."""

import sys

from create_dataset.command import main

if __name__ == "__main__":
    sys.exit(main())
