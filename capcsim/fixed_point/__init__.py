"""A model as integer layers: the arithmetic that every exact backend computes.

Inputs, weights and activations carry 12 fraction bits, an accumulator 24 or more. A ReLU floors an
accumulator back to 12 bits and saturates it to [0, 2^16), a range of 16. Everything is exact in integers, so
two parties' shares can reproduce it bit for bit. Sums of products run on float64 BLAS, which is exact because
`compile_model` refuses a model whose accumulators could reach 2^53.
"""

from capcsim.fixed_point.bounds import RING_SIZES_BITS
from capcsim.fixed_point.compile import LAYERS, compile_model
from capcsim.fixed_point.layers import FRACTION_BITS, RELU_BITS, RELU_LIMIT, Weights
from capcsim.fixed_point.network import Encoding, Network, PublicNetwork, encode

__all__ = [
    "FRACTION_BITS",
    "LAYERS",
    "RELU_BITS",
    "RELU_LIMIT",
    "RING_SIZES_BITS",
    "Encoding",
    "Network",
    "PublicNetwork",
    "Weights",
    "compile_model",
    "encode",
]
