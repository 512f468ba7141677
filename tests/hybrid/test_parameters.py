import pytest

from capcsim.errors import InputError
from capcsim_hybrid.parameters import LEVELS, Parameters, choose, context, decrypts, margin_bits


@pytest.mark.parametrize(
    "weak",
    [
        Parameters(4096, (60, 60, 20), 37),
        Parameters(4096, (55, 55), 37),
        Parameters(8192, (60, 60, 60, 60), 41),
        Parameters(16384, (60,) * 8, 41),
        Parameters(2048, (60,), 20),
    ],
)
def test_parameters_below_128_bits_are_refused(weak: Parameters) -> None:
    with pytest.raises(InputError, match=r"refused .*; choose a security level of 8192, 16384, 32768"):
        context(weak)


@pytest.mark.parametrize("degree", LEVELS)
@pytest.mark.parametrize("plain_bits", [24, 37, 41, 46])
def test_every_level_and_ring_has_parameters_of_128_bits(degree: int, plain_bits: int) -> None:
    """||W||_1 = 2^24 is what a reply of thousands of large weights has."""
    parameters = choose(degree, plain_bits, [(1000, 2.0**24)])
    assert context(parameters).seal.parameters_set()
    assert context(parameters).seal.first_context_data().total_coeff_modulus_bit_count() == sum(
        parameters.prime_bits[:-1]
    )
    assert (parameters.degree, parameters.plain_bits) == (degree, plain_bits)


def test_more_weight_takes_a_longer_modulus_rather_than_less_margin() -> None:
    light, heavy = choose(8192, 41, [(100, 2.0**19)]), choose(8192, 41, [(2000, 2.0**26)])
    assert (len(light.prime_bits), len(heavy.prime_bits)) == (3, 4)


def test_weights_that_no_level_hides_are_refused() -> None:
    with pytest.raises(InputError, match=r"the flood hides the weights with \d+\.\d bits only"):
        choose(8192, 46, [(4096, 2.0**90)])


def test_the_margin_is_that_of_all_coefficients_that_are_sent() -> None:
    parameters = Parameters(8192, (60, 60, 20), 41)
    once, often = (margin_bits(parameters, [(count, 2.0**22)]) for count in (1, 1024))
    assert once - often == pytest.approx(10)
    assert margin_bits(parameters, [(512, 2.0**22)] * 2) == pytest.approx(often)
    # crypto literature's rule of thumb: 2F over the sum of 21.5 ||W||_1, here 2^77 / (2^10 * 21.5 * 2^22)
    assert often == pytest.approx(77 - 10 - 22 - 4.4263, abs=0.01)


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(InputError, match="security = 4096: choose one of 8192, 16384, 32768"):
        choose(4096, 37, [(1, 1.0)])


def test_a_flood_that_leaves_no_room_would_not_decrypt() -> None:
    """The check that `choose` relies on refuses noise beyond half of q / t."""
    parameters = Parameters(8192, (60, 60, 20), 41)
    assert decrypts(parameters, 2.0**40)
    assert not decrypts(parameters, 2.0**74)
