"""The bundled base and chats: what is held out is held out, the end of an answer is known, and a
short training answers questions that no training row has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from sftray.demo import CHATS, FOLDER, QUESTIONS
from sftray.plan.end_row import row_warning, untrained_rows
from sftray.storage.model_files import model_config

ROOT = Path(__file__).parents[2]
END_OF_TURN = 2
Turns = list[dict[str, str]]


def talks(path: Path) -> list[Turns]:
    return [json.loads(line)["messages"] for line in path.read_text().splitlines()]


def words(talk: Turns) -> set[str]:
    return {word for turn in talk for word in re.findall(r"[^\W\d_]+|\d+", turn["content"])}


def test_no_name_and_no_number_of_a_held_out_question_is_in_a_training_row() -> None:
    trained = set[str]().union(*map(words, talks(CHATS)))
    for talk in talks(QUESTIONS):
        new = words(talk) - trained
        assert {word for word in words(talk) if word.isdigit()} <= new
        names = {word for word in new if word[0].isupper()}
        assert names, "every question has a name that no training row has"
        # and nothing else is new: what is asked is asked of other names in training, too
        assert new == names | {word for word in new if word.isdigit()}


def test_the_chats_are_what_their_script_writes(tmp_path: Path) -> None:
    script = f"import demo_chats as d; from pathlib import Path; d.write(Path({str(tmp_path)!r}))"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT / "benchmarks", check=True)
    for path in (CHATS, QUESTIONS):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    rows = talks(CHATS)
    assert len({str(talk) for talk in rows}) == len(rows) >= 2000


def test_the_base_knows_the_token_that_ends_an_answer() -> None:
    assert list(row_warning(str(FOLDER), None, END_OF_TURN)) == []
    config = model_config(str(FOLDER))
    # the check sees one that the base does not know: padding
    assert untrained_rows(FOLDER, config, 3, [0, 1, 2, 3])
