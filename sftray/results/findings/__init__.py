"""What a sweep has learned, computed from its folder alone; docs/findings.md says what each number
means.

Promise: neither ray nor torch is imported, Optuna only to compute importance; right while the sweep
runs, too. Price: half a second for the importance of four axes, nothing to speak of for the rest.
"""

from sftray.results.findings.findings import Findings, learn
from sftray.results.findings.findings_text import advice, answer, text

__all__ = ["Findings", "advice", "answer", "learn", "text"]
