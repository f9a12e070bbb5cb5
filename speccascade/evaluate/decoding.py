"""Moved to `speccascade.inference.engine`: whoever imports the old name gets that module."""

import sys

from speccascade.inference import engine

sys.modules[__name__] = engine
