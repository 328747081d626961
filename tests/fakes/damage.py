"""What may become of a file on a disk."""

from __future__ import annotations

from collections.abc import Iterator


def damages(whole: bytes) -> Iterator[bytes | None]:
    """The file deleted (None), emptied, cut short by a byte or a half, and with one bit turned at
    each of some places, the first and the last byte among them."""
    yield None
    yield b""
    yield whole[:-1]
    yield whole[: len(whole) // 2]
    for sixteenth in range(17):
        place = sixteenth * (len(whole) - 1) // 16
        for bit in (0, 7):
            turned = bytearray(whole)
            turned[place] ^= 1 << bit
            yield bytes(turned)
