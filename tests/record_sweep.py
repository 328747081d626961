"""Copy what tests and notebooks read of a real sweep into tests/recorded: no weights, no paths.

python sweeps/lr_batch.py --demo --name lr_batch --num-trials 16 --set confirm_top=2 \\
    --set confirm_seeds=3 --set 'search_space.learning_rate=loguniform(3e-4, 0.3)'
python tests/record_sweep.py results/lr_batch
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from sftray.demo import FOLDER

RECORDED = Path(__file__).parent / "recorded"
FILES = (
    "sweep.json", "journal.jsonl", "leaderboard.json", "banks.json", "base_samples.jsonl",
    "best/sweep.json", "trials/*/samples.jsonl",
)  # fmt: skip


def record(sweep: Path, out: Path = RECORDED) -> None:
    """Write <out>/<name>/ and the manifest of its packs, <out>/packs/<key>/."""
    facts = json.loads((sweep / "sweep.json").read_text())
    packs = (sweep / facts["packs"]).resolve()
    taken = [(path, out / sweep.name / path.relative_to(sweep)) for name in FILES
             for path in sorted(sweep.glob(name))]  # fmt: skip
    taken.append((packs / "manifest.json", out / "packs" / packs.name / "manifest.json"))
    shutil.rmtree(out / sweep.name, ignore_errors=True)
    for path, target in taken:
        text = path.read_text(encoding="utf-8")
        text = text.replace(str(FOLDER), "sftray/demo")
        text = text.replace(facts["config"]["storage"], "results")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    record(Path(sys.argv[1]))
