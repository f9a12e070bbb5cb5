"""Moved to `speccascade.inference.generate`: whoever imports the old name gets that module."""

import sys

from speccascade.inference import generate

sys.modules[__name__] = generate
