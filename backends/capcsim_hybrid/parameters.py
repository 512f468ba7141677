"""Encryption parameters: security levels, how much the noise is flooded, and the proof that both fit.

BFV with t = 2^k, SEAL's 128-bit table (TC128). A reply's noise is the answering party's weights times the noise of
the upload: whoever holds the secret key could read weights out of it. So a uniform flood of [-F, F) is added to every
coefficient. The statistical distance that is left of one query is at most the sum over all coefficients that are
sent of (largest noise that depends on the secrets) / 2F; `margin_bits` is minus its logarithm, and must be at
least 40. Noise that depends on secrets: 21.5 ||W||_1 of a reply's weights (SEAL's binomial error stays within 21,
rounding adds a half), and what re-randomising adds, whose randomness must stay hidden too.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from math import log, log2, sqrt
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from capcsim.errors import InputError
from capcsim_hybrid.modular import constants

LEVELS: dict[int, tuple[tuple[int, ...], ...]] = {
    8192: ((60, 60, 20), (60, 60, 60, 20)),
    16384: ((60, 60, 60, 20),),
    32768: ((60, 60, 60, 20),),
}
"""Bits of the primes for each polynomial degree, the last one special: the first that gives the margin is taken."""
MARGIN_BITS = 40
LARGEST_ERROR = 21
"""SEAL's centred binomial distribution over 42 bits."""
_FAILURE_BITS = 80
"""Rounding in the last modulus switch passes its bound with a probability below 2^-80 a coefficient."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Polynomial degree N, bits of the primes (the last one special), and log2 of the plaintext modulus."""

    degree: int
    prime_bits: tuple[int, ...]
    plain_bits: int

    def __str__(self) -> str:
        primes = " + ".join(map(str, self.prime_bits))
        return f"BFV, N = {self.degree}, log q = {primes} bits, t = 2^{self.plain_bits}, TC128"

    @property
    def flood_bits(self) -> int:
        """Log2 of F: an eighth of q / t, so that the flood and all other noise still decrypt."""
        return sum(self.prime_bits[:-1]) - 3 - self.plain_bits


@dataclass(frozen=True)
class Context:
    """SEAL's objects for some parameters. `primes` uint64[L, 4] are the data primes as of `modular.constants`."""

    parameters: Parameters
    seal: Any
    evaluator: Any
    primes: NDArray[np.uint64]

    @property
    def data_id(self) -> Any:
        """Where uploads live: all data primes."""
        return self.seal.first_parms_id()

    @property
    def reply_id(self) -> Any:
        """Where replies live: the last prime that is left."""
        return self.seal.last_parms_id()


@lru_cache(maxsize=8)
def context(parameters: Parameters) -> Context:
    """SEAL's context; raises InputError for parameters below 128 bits of security."""
    chosen = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.BFV)
    try:
        chosen.set_poly_modulus_degree(parameters.degree)
        chosen.set_coeff_modulus(sealapi.CoeffModulus.Create(parameters.degree, list(parameters.prime_bits)))
        chosen.set_plain_modulus(1 << parameters.plain_bits)
        seal = sealapi.SEALContext(chosen, True, sealapi.SEC_LEVEL_TYPE.TC128)
        why = "" if seal.parameters_set() else seal.parameters_error_message()
    except (RuntimeError, ValueError, IndexError) as error:
        why = str(error)
    if why:
        raise InputError(f"{parameters}: refused ({why}); choose a security level of {', '.join(map(str, LEVELS))}")
    primes = [prime.value() for prime in seal.first_context_data().parms().coeff_modulus()]
    return Context(parameters, seal, sealapi.Evaluator(seal), constants(primes))


def choose(degree: int, plain_bits: int, noises: Iterable[tuple[int, float]]) -> Parameters:
    """The first parameters of a level that flood enough and still decrypt; raises InputError.

    `noises` has (coefficients sent for one query, ||W||_1) of every reply polynomial of a model.
    """
    if degree not in LEVELS:
        raise InputError(f"security = {degree}: choose one of {', '.join(map(str, LEVELS))}")
    noises = tuple(noises)
    for prime_bits in LEVELS[degree]:
        parameters = Parameters(degree, prime_bits, plain_bits)
        if margin_bits(parameters, noises) >= MARGIN_BITS and decrypts(parameters, max(norm for _, norm in noises)):
            return parameters
    found = margin_bits(parameters, noises)
    raise InputError(f"{parameters}: the flood hides the weights with {found:.1f} bits only; choose another level")


def margin_bits(parameters: Parameters, noises: Iterable[tuple[int, float]]) -> float:
    """Statistical security of one query in bits; `noises` as of `choose`."""
    shown = sum(count * _secret_noise(parameters, norm) for count, norm in noises)
    return parameters.flood_bits + 1 - log2(shown)


def decrypts(parameters: Parameters, norm: float) -> bool:
    """Whether a reply still decrypts when every noise is at its bound."""
    # SEAL's primes lie so little below powers of two that 0.999 covers it.
    data, last = sum(parameters.prime_bits[:-1]), parameters.prime_bits[0]
    noise = _secret_noise(parameters, norm) + 2.0**parameters.flood_bits + 1
    # ||s||_2 of a ternary secret is at most sqrt(N); Hoeffding's bound for N roundings of at most a half.
    rounding = 0.5 + sqrt(parameters.degree / 2 * (_FAILURE_BITS + 1) * log(2))
    return noise * 2.0 ** (last - data) + rounding < 2.0 ** (last - parameters.plain_bits - 1) * 0.999


def _secret_noise(parameters: Parameters, norm: float) -> float:
    """The largest noise of one coefficient that depends on weights or on what hides the result."""
    special = 2.0 ** (parameters.prime_bits[-1] - 1)
    encryption = LARGEST_ERROR * (1 + 2 * parameters.degree) / special + (1 + parameters.degree) / 2
    return (LARGEST_ERROR + 0.5) * norm + encryption + 0.5
