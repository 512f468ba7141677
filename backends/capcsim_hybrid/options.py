"""What the backend and the two parties' programs may be made with, checked in one place."""

from capcsim.errors import InputError

DEGREES = (8192, 16384, 32768)
"""Polynomial degrees of the security levels, all at 128 bits."""
ORDERS = ("ahead", "online")
POOL_BYTES = 1 << 30
_MOST_POOL_BYTES = 1 << 62


def check_options(security: int, order: str = "ahead", pool_bytes: int = POOL_BYTES) -> None:
    """Raise InputError for an option that is none."""
    if type(security) is not int or security not in DEGREES:
        raise InputError(f"security = {security!r}: choose one of {', '.join(map(str, DEGREES))}")
    if order not in ORDERS:
        raise InputError(f"order = {order!r}: choose one of {', '.join(ORDERS)}")
    if type(pool_bytes) is not int or not 0 < pool_bytes <= _MOST_POOL_BYTES:
        raise InputError(
            f"pool_bytes = {pool_bytes!r}: give a positive whole number of bytes, for example {POOL_BYTES}"
        )
