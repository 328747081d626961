"""The eval loss by kind of token, from the journal to every place that shows it."""

from __future__ import annotations

from pathlib import Path

from fake_bundle import facts_of
from fake_folder import EVENTS, found_in, result

from sftray.cli.commands import say_results
from sftray.config import TrialConfig
from sftray.results.loss_by_kind import end_text, kinds_text, losses_by_kind
from sftray.storage.journal.event_checks import refusal
from sftray.views.report.report import page
from sftray.views.tracking.tracked_metrics import TrackedTrial
from sftray.winner.model_card import model_card

BASE = [["words", 2.0, 300], ["end", 6.9, 40], ["calls", 4.0, 60]]
BEST = [["words", 1.9, 300], ["end", 0.105, 40], ["calls", 0.5, 60]]
TEXT = """\
eval loss by kind of token  tokens    base   t0000
words                          300  2.0000  1.9000
end of an answer                40  6.9000  0.1050
tool calls                      60  4.0000  0.5000
Where an answer ends, its end has a probability of 0.9 (0.001 under the base), the geometric mean.\
"""


def events() -> list[object]:
    told = [dict(event) for event in EVENTS]
    told[2] = result("t0000", 0, 3.0, 1, device="cpu", eval_loss_by_kind=BASE)
    told[3] = result("t0000", 2, 2.5, 2, eval_loss_by_kind=BEST)
    told[4] = result("t0000", 3, 2.75, 3, eval_loss_by_kind=BASE)
    return told


def test_base_and_winner_stand_beside_each_other_everywhere(
    tmp_path: Path, capsys, tiny: TrialConfig
) -> None:
    found = found_in(tmp_path, events())
    assert kinds_text(found.leaderboard) == TEXT
    say_results(found, verbose=True)
    assert TEXT in capsys.readouterr().out
    shown = page(found)
    assert '<td>end of an answer</td><td class="number">40</td>' in shown
    losses = losses_by_kind(found.leaderboard)
    assert end_text(losses) in shown
    card = model_card(facts_of(tiny, by_kind=losses))
    assert "| end of an answer | 40 | 0.1050 | 6.9000 |" in card
    assert end_text(losses) in card
    assert found.kinds[found.kinds["step"] == 2]["eval_loss"].tolist() == [1.9, 0.105, 0.5]


def test_a_sweep_that_did_not_report_them_says_nothing_of_them(tmp_path: Path) -> None:
    found = found_in(tmp_path, EVENTS)
    assert kinds_text(found.leaderboard) == ""
    assert 'id="kinds"' not in page(found)
    assert found.kinds.empty


def test_trackers_get_a_metric_of_each_kind(tmp_path: Path) -> None:
    sweep = found_in(tmp_path, EVENTS).config
    trial = TrackedTrial(sweep, "t0000", {"learning_rate": 1e-3})
    (row,) = trial.evaluated(events()[2]["metrics"])  # type: ignore[index]
    assert row.values["eval_loss/end"] == 6.9


def test_a_journal_of_other_values_is_refused() -> None:
    told = result("t0000", 0, 3.0, 1, eval_loss_by_kind=[["end", "low", 3]])
    assert "eval_loss_by_kind" in refusal(told)
