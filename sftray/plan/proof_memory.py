"""What the proof of a loaded base takes of a GPU's memory, and what that rests on (`equality`).

Promise: arithmetic without torch; an upper estimate. It is taken before anything is trained, when
only the base is there.
"""

from __future__ import annotations

import math

from sftray.plan.model_shape import ModelShape

SHORT = (48, 17)
"""Tokens of the other documents."""
BEYOND_WINDOW = 64
"""Tokens of the first document besides those of a window."""
MOST_SCORES = 2**30
"""Bytes that eager attention's scores may take; or half of the GPU's free memory, if more."""
DECODED_AT_ONCE = 2**24
"""Elements of a matrix: 64 MB in float32. Of larger embeddings only some rows are copied."""


def document_lengths(window: int | None, max_length: int, longest: int) -> list[int]:
    """Tokens of the compared documents, of which the first reaches beyond the window if
    `max_length` and `longest` let it."""
    first = min((window or SHORT[0]) + BEYOND_WINDOW, longest)
    if first + sum(SHORT) <= max_length:
        return [first, *SHORT]
    rest = [min(length, max_length // 4) for length in SHORT]
    return [min(first, max_length - sum(rest)), *rest]


def longest_document(heads: int, room: float = MOST_SCORES) -> int:
    """Tokens of a document whose scores, their softmax and its gradient fit `room` in float32."""
    return math.isqrt(int(room) // (12 * heads))


def proof_bytes(shape: ModelShape, size: int, max_length: int) -> float:
    """Beside the base, whose numbers are computed with in `size` bytes: some rows of a matrix as
    codes, values and scaled values, or the matrix that the path itself decodes; the scores, and
    what one layer keeps of float32 for its gradient and for the comparison; and its experts."""
    lengths = document_lengths(shape.window, max_length, longest_document(shape.heads))
    matrix = shape.inner * shape.hidden
    products = max(20 * min(DECODED_AT_ONCE, matrix), 2 * size * matrix, 8 * DECODED_AT_ONCE)
    kept = 4 * sum(lengths) * (24 * shape.hidden + 8 * shape.inner)
    copied = 4 * shape.in_experts / shape.layers
    return float(products + kept + copied + 12 * shape.heads * lengths[0] ** 2)
