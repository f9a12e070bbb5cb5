from speccascade.inference.padding import padded


def test_few_lengths_and_little_padding():
    for step, steps in ((16, 8), (32, 4)):
        found = [padded(length, step, steps) for length in range(1, 5000)]
        for length, room in enumerate(found, 1):
            assert length <= room
            assert room - length < max(step, 2 * room / steps)
        assert found == sorted(found)
        assert len(set(found)) <= steps + steps / 2 * 7
    assert sorted({padded(n, 32, 4) for n in range(1, 513)}) == [
        32,
        64,
        96,
        128,
        192,
        256,
        384,
        512,
    ]
    assert padded(100_000, 32, 4) == 131_072
