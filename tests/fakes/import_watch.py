"""Which threads import transformers while a bank loads its base; a process of its own, for it must
not be there yet.

python import_watch.py MODEL PACKS open|lend

The bank is opened, or its process lent for the check of the winner, before the base is there.
Prints the threads that imported any of transformers or PEFT before, but for the one that loads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import Any


class Watch:
    """Sees every module that Python looks for."""

    def __init__(self) -> None:
        self.base: Any = None
        """The future that is the loaded base."""
        self.seen: list[str] = []
        """Threads, in the order in which they looked for one of the two while the base was not
        there."""

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name.partition(".")[0] not in ("transformers", "peft"):
            return
        if self.base is None or not self.base.done():
            self.seen.append(threading.current_thread().name)


def main(arguments: Sequence[str]) -> None:
    model, packs, way = arguments
    watch: Any = Watch()
    sys.meta_path.insert(0, watch)
    from sftray.config import TrialConfig
    from sftray.plan.bank_settings import BankSettings
    from sftray.trainers.bank.bank_process import BankProcess, Opening

    trial = TrialConfig(model, base_precision="fp32", lora_r=4)
    bank = BankProcess(trial, use_gpu=False, threads=1)
    watch.base = bank._model
    if way == "open":
        settings = BankSettings(
            slots=1,
            micro_batch_size=1,
            lora_r=4,
            dropout=False,
            resident=True,
            activation_checkpointing=False,
            memory_gb=0.0,
        )
        bank.open(Opening(packs, settings, sweep=None))  # type: ignore[arg-type]
    bank.lend(check)
    (loader,) = {*watch.seen[:1]}
    print(sorted({*watch.seen} - {loader}))  # noqa: T201


def check() -> None:
    """As the check of the winner begins."""
    import peft  # noqa: F401
    from transformers import AutoModel  # noqa: F401


if __name__ == "__main__":
    main(sys.argv[1:])
