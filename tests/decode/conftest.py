"""What the tests of the engine share."""

import pytest

from tests.decode import toys


@pytest.fixture(scope="module", params=list(toys.PAIRS))
def pair(request) -> toys.Pair:
    """A pair of each family: the engine must not tell them apart."""
    return toys.PAIRS[request.param]
