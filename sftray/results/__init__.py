"""A sweep as plain values and tables, read from its folder alone: `results.load(DIR)`.

Promise: neither ray nor torch is imported.
"""

from sftray.results.load import load
from sftray.results.tables import Results, compare, differences

__all__ = ["Results", "compare", "differences", "load"]
