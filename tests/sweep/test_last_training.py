"""`sftray train`: the recommended point on all the data, into a bundle of its own."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sftray.cli.main import main
from sftray.config import SweepConfig
from sftray.data.packs.packs import Packs, open_packs
from sftray.demo import FOLDER
from sftray.errors import ConfigError, SftrayError
from sftray.results import Results
from sftray.results.leaderboard_text import recommended, table
from sftray.storage.paths import SweepPaths
from sftray.sweep.last_training import last_training
from sftray.sweep.run import run_sweep
from sftray.winner.bundle import BundleFacts, open_bundle
from sftray.winner.generate import answer

pytestmark = pytest.mark.ray

CHATS = sum(1 for line in (FOLDER / "chats.jsonl").read_text().splitlines() if line)
"""Of the demo, of which the small sweep reads the first few."""


def short(sweep: SweepConfig) -> SweepConfig:
    """As many conversations as the small sweep had, so that it is done soon."""
    return replace(sweep, data=replace(sweep.data, max_conversations=250))


def members(packs: Packs, split: str) -> set[int]:
    return {int(one) for row in packs.dataset(split) for one in row["documents"]}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture(scope="module")
def trained(small_sweep: Results, lines: list[str]) -> Results:
    """Cut off after its first evaluation, and continued."""
    sweep = short(last_training(small_sweep.folder, epochs=0.75, hold_out=False))

    def cut_off(line: str) -> None:
        if line.startswith("t0000") and "step" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(sweep, local=True, log=cut_off)
    return run_sweep(sweep, local=True, log=lines.append)


def test_every_conversation_is_trained_on(trained: Results, small_sweep: Results) -> None:
    packs, searched = open_packs(trained.packs), open_packs(small_sweep.packs)
    assert members(packs, "train") == members(searched, "train") | members(searched, "eval")
    assert members(packs, "eval") == members(searched, "eval")
    (record,) = trained.records
    rows = packs.rows("train")
    assert record.outcome == "completed"
    batch = trained.trial_configs["t0000"].effective_batch_size
    assert record.last["step"] == int(round(0.75 * rows) / batch)
    assert (np.diff([one["step"] for one in record.results]) > 0).all()


def test_it_continues_where_it_was_cut_off(trained: Results, lines: list[str]) -> None:
    assert any(line.startswith("t0000  continues from step ") for line in lines)
    assert any("data.hold_out=False: what is evaluated on is trained on" in line for line in lines)


def test_its_bundle_is_of_the_last_step_and_checked(trained: Results, small_sweep: Results) -> None:
    _, facts = open_bundle(trained.folder)
    best = BundleFacts.read(SweepPaths(small_sweep.folder).best)
    assert facts.verified
    assert facts.step == trained.records[0].last["step"]
    assert facts.config == replace(best.config, num_train_epochs=0.75)
    assert facts.point == {**best.point, "num_train_epochs": 0.75}
    assert facts.searched is not None
    assert (facts.searched.eval_loss, facts.searched.says) == (best.eval_loss, best.says)
    said = answer(trained.folder, "What is 3 plus 4?", max_new_tokens=4)
    assert said.keys() == {"base", "adapter"}


def test_the_card_has_no_eval_loss_but_that_of_the_search(
    trained: Results, small_sweep: Results
) -> None:
    best = BundleFacts.read(SweepPaths(small_sweep.folder).best)
    card = Path(trained.folder, "best", "README.md").read_text(encoding="utf-8")
    assert "There is no eval loss: what it would be of was trained on, too." in card
    assert "The point is the best of the sweep `small`, which trained it for 0.5 epochs" in card
    assert f"| the point | {best.eval_loss:.4f} (" in card
    assert "| untrained base |" in card
    assert "this adapter | eval loss" not in card
    assert "## The best of" not in card
    words = recommended(trained.leaderboard)
    assert words == "t0000: no eval loss, because it was trained on all conversations"
    assert "loss (trained on)" in table(trained.leaderboard)
    repeat = runpy.run_path(f"{trained.folder}/best/repeat.py")["sweep"]
    assert (repeat.data.hold_out, repeat.trial.num_train_epochs) == (False, 0.75)


def test_a_finished_one_is_not_trained_again(trained: Results, small_sweep: Results) -> None:
    said: list[str] = []
    again = short(last_training(small_sweep.folder, epochs=0.75, hold_out=False))
    run_sweep(again, local=True, log=said.append)
    assert said[0].startswith("the sweep has ended")
    other = short(last_training(small_sweep.folder, hold_out=False))
    with pytest.raises(ConfigError, match="differs in points"):
        run_sweep(other, local=True, log=said.append)
    with pytest.raises(SftrayError, match="got a last training, must be the sweep that"):
        last_training(trained.folder)


def test_what_was_held_out_is_kept_apart_by_default(
    small_sweep: Results, small_sweep_config: SweepConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", small_sweep.folder, "--name", "again", "--plan", "--json"])
    assert ended.value.code == 0
    plan = json.loads(capsys.readouterr().out)
    sweep = last_training(small_sweep.folder)
    assert sweep.data == replace(small_sweep_config.data, max_conversations=None)
    assert sweep.data.has_eval_loss
    assert plan["sweep"] == "again"
    parts = {split: counts["conversations"] for split, counts in plan["data"].items()}
    assert parts["train"] < sum(parts.values()) == CHATS


def test_a_search_on_what_is_trained_on_is_refused(small_sweep_config: SweepConfig) -> None:
    data = replace(small_sweep_config.data, hold_out=False)
    with pytest.raises(ConfigError, match=r"data\.hold_out: got False with 3 trials, must be True"):
        replace(small_sweep_config, data=data)
    own = replace(data, eval_source="held_out.jsonl")
    assert replace(small_sweep_config, data=own).data.has_eval_loss
