import numpy as np

from capcsim.seeds import Seeds


def test_a_stream_depends_on_seed_use_and_indices() -> None:
    streams = [
        Seeds(1).generator("train", 3),
        Seeds(2).generator("train", 3),
        Seeds(1).generator("select", 3),
        Seeds(1).generator("train", 4),
        Seeds(1).generator("train", 3, 0),
    ]
    draws = [tuple(stream.integers(1 << 62, size=4)) for stream in streams]
    assert len(set(draws)) == len(draws)


def test_a_stream_repeats_in_any_process() -> None:
    # The value is fixed here because it must not depend on Python's hash randomisation or on the platform.
    assert Seeds(7).integer("train", 3) == 1729786505727479091
    assert np.array_equal(Seeds(7).generator("a").random(5), Seeds(7).generator("a").random(5))
