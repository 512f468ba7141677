"""Linear layers under BFV: the querying party's encrypted shares times the answering party's weights.

One layer: the querying party uploads its share of the inputs, symmetrically encrypted (the second polynomial is a
seed). For each reply the answering party multiplies and adds in transformed form, adds a fresh encryption of zero
under the querying party's public key (who knows the upload's second polynomial would otherwise divide by it and read
the weights), floods the noise, subtracts a uniform mask from every coefficient, switches to one prime, which is
public post-processing, and sends those coefficients of c0 that hold results, and c1. The masks are its share.

Encryption errors, masks and floods come from the operating system's generator, and each is used once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tenseal.sealapi as sealapi
from numpy.typing import NDArray

from capcsim.crypto.shares import ring_mask, uniform
from capcsim.errors import PeerFailed
from capcsim.fixed_point.layers import Conv2d, Linear
from capcsim.twoparty.programs import Recv, Send, Steps
from capcsim_hybrid.modular import add_wide, multiply_accumulate
from capcsim_hybrid.packing import Layout, arrange_inputs
from capcsim_hybrid.parameters import Context
from capcsim_hybrid.seal_memory import load, memory, save

Words = NDArray[np.uint64]


class SecretKeys:
    """The querying party's key pair, which no other process sees. `public` are the bytes that it hands out."""

    def __init__(self, context: Context) -> None:
        generator = sealapi.KeyGenerator(context.seal)
        public = sealapi.PublicKey()
        generator.create_public_key(public)
        self.context, self.public = context, save(public)
        self._encryptor = sealapi.Encryptor(context.seal, generator.secret_key())
        self._decryptor = sealapi.Decryptor(context.seal, generator.secret_key())

    def __reduce__(self) -> Any:
        raise TypeError("secret keys do not leave their process")

    def encrypt(self, coefficients: Words) -> bytes:
        """A ciphertext of coefficients mod t, uint64[N], with its second polynomial as a seed."""
        plain = sealapi.Plaintext(len(coefficients))
        memory.write(self.context.seal, plain, coefficients)
        return save(self._encryptor.encrypt_symmetric(plain))

    def decrypt(self, first: Words, second: Words) -> Words:
        """The coefficients mod t of a reply whose polynomials are these, uint64[N] each."""
        cipher, plain = sealapi.Ciphertext(), sealapi.Plaintext()
        cipher.resize(self.context.seal, self.context.reply_id, 2)
        memory.write(self.context.seal, cipher, np.concatenate([first, second]))
        self._decryptor.decrypt(cipher, plain)
        coefficients = np.zeros(len(first), np.uint64)
        found = memory.read(plain)
        coefficients[: len(found)] = found
        return coefficients


class PublicKey:
    """The answering party's copy of the querying party's public key; raises PeerFailed for bytes that are none."""

    def __init__(self, context: Context, payload: bytes) -> None:
        key = sealapi.PublicKey()
        try:
            load(context.seal, key, payload)
        except (RuntimeError, ValueError, IndexError) as error:
            raise PeerFailed(f"the querying party sent no public key for {context.parameters}: {error}") from None
        self.context = context
        self._encryptor = sealapi.Encryptor(context.seal, key)

    def encrypt_zero(self) -> Any:
        """A fresh encryption of zero where uploads live."""
        cipher = sealapi.Ciphertext()
        self._encryptor.encrypt_zero(self.context.data_id, cipher)
        return cipher


@dataclass(frozen=True)
class EncodedWeights:
    """A layer's weights in transformed form: uint64[out_blocks, in_blocks, L, N / images]."""

    layout: Layout
    transforms: Words = field(repr=False)


def encode_weights(context: Context, layout: Layout, weight: NDArray[np.int64]) -> EncodedWeights:
    """Transform a kernel int64[M, C, kh, kw]; one value of each run of equal ones is kept."""
    plain_mask = ring_mask(context.parameters.plain_bits)
    levels = len(context.primes)
    transforms = np.empty((layout.out_blocks, layout.in_blocks, levels, layout.degree // layout.images), np.uint64)
    plain, transformed = sealapi.Plaintext(layout.degree), sealapi.Plaintext()
    for out_block in range(layout.out_blocks):
        for in_block in range(layout.in_blocks):
            coefficients = layout.encode_weights(weight, in_block, out_block).astype(np.uint64) & plain_mask
            memory.write(context.seal, plain, coefficients)
            context.evaluator.transform_to_ntt(plain, context.data_id, transformed)
            runs = memory.read(transformed).reshape(levels, layout.degree)
            transforms[out_block, in_block] = runs[:, :: layout.images]
    return EncodedWeights(layout, transforms)


def noises(layout: Layout, weight: NDArray[np.int64]) -> Iterator[tuple[int, float]]:
    """For each reply: how many coefficients are sent for one query, and ||W||_1 of its polynomials."""
    results = layout.form.rows * layout.form.columns
    for first in range(0, layout.form.outputs, layout.out_block):
        block = weight[first : first + layout.out_block]
        yield len(block) * results, float(np.abs(block).sum())


def upload(keys: SecretKeys, node: Linear | Conv2d, layout: Layout, values: Words) -> Steps:
    """Send the encrypted share of a layer's inputs, uint64[B, *input shape] mod t."""
    for images in _groups(arrange_inputs(node, values), layout.images):
        for block in range(layout.in_blocks):
            yield Send(keys.encrypt(layout.encode_inputs(images, block)))


def receive(keys: SecretKeys, node: Linear | Conv2d, layout: Layout, batch: int) -> Steps:
    """The replies: W x - mask mod t, uint64[B, *output shape]. Raises PeerFailed for a reply of another size."""
    rows: list[Words] = []
    for count in _group_sizes(batch, layout.images):
        blocks = []
        for block in range(layout.out_blocks):
            places = layout.places(block, count)
            reply = yield Recv()
            if len(reply) != 8 * (places.size + layout.degree):
                raise PeerFailed(f"{node}: a reply of {len(reply)} bytes, not {8 * (places.size + layout.degree)}")
            words = np.frombuffer(reply, np.uint64)
            first = np.zeros(layout.degree, np.uint64)
            first[places.reshape(-1)] = words[: places.size]
            blocks.append(keys.decrypt(first, words[places.size :])[places])
        rows.append(np.concatenate(blocks, axis=1))
    return np.concatenate(rows).reshape(batch, *node.shape)


def respond(key: PublicKey, node: Linear | Conv2d, weights: EncodedWeights, batch: int) -> Steps:
    """Answer every upload of a layer; returns the masks, uint64[B, *output shape] mod t."""
    rows: list[Words] = []
    layout = weights.layout
    for count in _group_sizes(batch, layout.images):
        uploads = []
        for _ in range(layout.in_blocks):
            uploads += [(yield Recv())]
        inputs, template = _transformed(key.context, uploads)
        blocks = []
        for block in range(layout.out_blocks):
            places = layout.places(block, count)
            mask = uniform((layout.degree,), key.context.parameters.plain_bits)
            yield Send(_reply(key, weights.transforms[block], inputs, template, mask, places))
            blocks.append(mask[places])
        rows.append(np.concatenate(blocks, axis=1))
    return np.concatenate(rows).reshape(batch, *node.shape)


def _transformed(context: Context, uploads: Sequence[bytes]) -> tuple[Words, Any]:
    """Uploads in transformed form uint64[I, 2, L, N], and a ciphertext of that form to write into."""
    inputs = np.empty((len(uploads), 2, len(context.primes), context.parameters.degree), np.uint64)
    for number, payload in enumerate(uploads):
        cipher = sealapi.Ciphertext()
        try:
            load(context.seal, cipher, payload)
        except (RuntimeError, ValueError, IndexError) as error:
            raise PeerFailed(f"the querying party sent no ciphertext of {context.parameters}: {error}") from None
        if cipher.parms_id() != context.data_id or cipher.size() != 2 or cipher.is_ntt_form():
            raise PeerFailed(f"the querying party sent a ciphertext that is no upload of {context.parameters}")
        context.evaluator.transform_to_ntt_inplace(cipher)
        inputs[number] = memory.read(cipher).reshape(inputs.shape[1:])
    return inputs, cipher


def _reply(key: PublicKey, transforms: Words, inputs: Words, template: Any, mask: Words, places: Any) -> bytes:
    """One reply: multiply, re-randomise, flood, mask, switch, cut."""
    context = key.context
    product = np.empty(inputs.shape[1:], np.uint64)
    shift = (context.parameters.degree // transforms.shape[2]).bit_length() - 1
    multiply_accumulate(inputs, transforms, context.primes, shift, product)
    cipher = key.encrypt_zero()
    if product.any():  # SEAL refuses a product with weights that are all zero; the encryption of zero stands for it
        result = sealapi.Ciphertext()
        memory.write(context.seal, template, product.reshape(-1))
        context.evaluator.transform_from_ntt(template, result)
        context.evaluator.add_inplace(cipher, result)
    flooded = memory.read(cipher).reshape(product.shape)
    add_flood(context, flooded[0])
    memory.write(context.seal, cipher, flooded.reshape(-1))
    plain = sealapi.Plaintext(len(mask))
    memory.write(context.seal, plain, mask)
    context.evaluator.sub_plain_inplace(cipher, plain)
    context.evaluator.mod_switch_to_inplace(cipher, context.reply_id)
    first, second = memory.read(cipher).reshape(2, -1)
    return bytes(first[places.reshape(-1)].tobytes() + second.tobytes())


def add_flood(context: Context, residues: Words) -> None:
    """Add a uniform number of [-F, F) to every coefficient, in place; residues uint64[L, N]."""
    bits = context.parameters.flood_bits
    words = uniform((residues.shape[1], -(-(bits + 1) // 64)), 64)
    words[:, -1] &= ring_mask((bits + 1) % 64 or 64)
    minus = np.array([pow(2, bits, int(prime)) for prime in context.primes[:, 0]], np.uint64)
    add_wide(residues, words, minus, context.primes)


def _groups(images: Words, size: int) -> Iterator[Words]:
    return (images[first : first + size] for first in range(0, len(images), size))


def _group_sizes(batch: int, size: int) -> list[int]:
    return [min(size, batch - first) for first in range(0, batch, size)]
