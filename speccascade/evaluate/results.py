"""Moved to `speccascade.workdir.results`: whoever imports the old name gets that module."""

import sys

from speccascade.workdir import results

sys.modules[__name__] = results
