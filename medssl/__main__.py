"""``python -m medssl``."""

import sys

from medssl.cli import main

sys.exit(main())
