"""What is recommended is said in the same words everywhere: one function decides it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fake_bundle import facts_of, save_bundle
from fake_folder import RECORDED

from sftray.cli.commands import say_results
from sftray.cli.main import main
from sftray.config import TrialConfig
from sftray.results import load
from sftray.results.leaderboard_text import recommended
from sftray.views.live.watched import Watched
from sftray.views.report.report import page
from sftray.winner.model_card import model_card


def test_every_place_says_what_is_recommended_in_the_same_words(
    tmp_path: Path, tiny: TrialConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(shutil.copytree(RECORDED, tmp_path / "lr_batch"))
    found = load(folder)
    words = recommended(found.leaderboard)
    assert words.startswith(f"{found.leaderboard['best']}: eval loss ")
    assert found.leaderboard["confirmed"]["winner"] == found.leaderboard["best"]
    assert words in page(found)  # the verdict
    say_results(found, top=3)  # the last lines of a sweep, and `sftray results`
    assert words in " ".join(capsys.readouterr().out.split())
    watched = Watched(folder)
    watched.catch_up()
    assert watched.state().says == words
    assert f"The sweep says: {words}." in model_card(facts_of(tiny, says=words))
    bundle = save_bundle(tmp_path / "best", tiny, says=words)
    with pytest.raises(SystemExit):
        main(["best", str(bundle)])
    assert capsys.readouterr().out.startswith(f"{words}, checked\n")
