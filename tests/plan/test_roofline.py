"""Times against closed forms."""

import dataclasses

import pytest

from speccascade.models.costs import Cost, Exchange
from speccascade.plan import roofline
from speccascade.sharding.chips import CHIPS, HOP_SECONDS
from tests.plan import tiny


def test_memory_hides_products_and_exchanges_hide_behind_nothing():
    slice_, chip = tiny.fake("v5e:2x4"), CHIPS["v5e"]
    cost = Cost(ops=chip.flops, hbm_bytes=3 * chip.hbm_bandwidth, exchanges=(Exchange(800, 8),))
    found = roofline.time(cost, slice_)
    assert (found.compute, found.memory) == (1, 3)
    assert found.exchange == 2 * 7 / 8 * 800 / chip.link_bandwidth
    # A line of four and one of two chips: four links lie between the farthest, there and back.
    assert found.hops == 2 * 4 * HOP_SECONDS
    assert found.total == 3 + found.exchange + found.hops
    assert found.bound == "memory"


def test_a_lone_device_exchanges_nothing():
    assert roofline.time(Cost(ops=197e12), tiny.fake("v5e:1x1")).total == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "ways", "links", "directions"),
    [
        ("v5e:1x1", 1, 0, 1),
        ("v5e:2x4", 4, 3, 1),
        ("v5e:4x4", 8, 4, 1),
        ("v5e:4x4", 16, 6, 1),
        ("v5e:16x16", 16, 8, 2),  # sixteen chips close to a ring
        ("v5e:16x16", 8, 7, 1),  # half of it does not
        ("v5p:2x2x4", 4, 2, 2),
        ("v5p:2x2x4", 16, 4, 2),
    ],
)
def test_links_between_the_farthest_chips(name, ways, links, directions):
    generation, _, grid = name.partition(":")
    slice_ = dataclasses.replace(
        tiny.fake("v5e:1x1"), chip=CHIPS[generation], grid=tuple(map(int, grid.split("x")))
    )
    assert slice_.diameter(ways) == links
    assert slice_.bandwidth(ways) == directions * CHIPS[generation].link_bandwidth


def test_a_token_is_its_share_of_a_block():
    def act(seconds):
        return roofline.Act(Cost(), roofline.Time(0, seconds, 0, 0))

    block = roofline.Block(act(2), act(1), 3, act(10), act(0.5), act(9))
    assert block.total == 2 + 2 * 1 + 10 + 0.5
    assert block.per_token(0.5, 2) == pytest.approx(14.5 / 1.75)
    assert block.per_token(1.0, 2) == pytest.approx(14.5 / 3)
