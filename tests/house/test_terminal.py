"""What others wrote reaches a terminal, a log or a page with its control characters shown."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest
from data_templates import DEMO
from fake_folder import EVENTS, found_in
from fake_trials import make_sweep
from packs_here import build_packs_here
from rich.console import Console

from sftray.cli.main import main
from sftray.cli.terminal import hook_without_secrets, say, with_plain_errors
from sftray.config import DataConfig
from sftray.data.packs.inspect import inspect_text
from sftray.errors import DataError
from sftray.storage.terminal_text import log_handler, put, visible
from sftray.views.live.live_view import view
from sftray.views.live.screen import shown
from sftray.views.live.snapshot import State, TrialLine
from sftray.views.tracking.journal_follower import say as say_in_a_mirror

SFTRAY = Path(__file__).parents[2] / "sftray"
EVIL = (
    "a\x1b[31mred\x1b]52;c;cm0gLXJm\x07\x9b2J\x1b[8mhidden\rover\x08\x7f\u202eturned\u2066\u2028b"
    "\ud800\x00"
)
"""Colour, the clipboard, a C1 control, concealed text, a carriage return, a bidi override, half a
character."""
UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")
DOORS = {
    "storage/terminal_text.py": "the door",
    "views/live/screen.py": "rich's Console, which is given visible text alone",
    "cli/terminal.py": "a question that is made visible",
}
SHOWN = r"a\x1b[31mred\x1b]52;c;cm0gLXJm\x07\x9b2J\x1b[8mhidden\rover\x08\x7f\u202eturned\u2066"


def printing(root: Path) -> list[str]:
    """Every place outside the doors that could write to a terminal."""
    return [
        f"{path.relative_to(root)}:{node.lineno} {words}"
        for path in sorted(root.rglob("*.py"))
        if str(path.relative_to(root)) not in DOORS
        for node, words in terminals(ast.parse(path.read_text(encoding="utf-8")))
    ]


def terminals(tree: ast.Module) -> Iterator[tuple[ast.expr, str]]:
    """What is called or handed on: a standard stream, but as a stream of `put` or to ask whether it
    is a terminal; and what writes to one by itself."""
    heeded = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "put"
        for inner in node.args
    } | {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr == "isatty"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and id(node) not in heeded:
            if ast.unparse(node) in ("sys.stdout", "sys.stderr", "sys.__stdout__"):
                yield node, ast.unparse(node)
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in (
                "print",
                "input",
                "Console",
                "traceback.print_exc",
                "faulthandler.enable",
            ):
                yield node, called
            if called == "logging.basicConfig" and "handlers" not in [k.arg for k in node.keywords]:
                yield node, called


def test_nothing_but_the_door_writes_to_a_terminal() -> None:
    assert printing(SFTRAY) == []


def test_what_writes_by_itself_is_found(tmp_path: Path) -> None:
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / "rungs.py").write_text(
        dedent("""
        print("x")
        sys.stderr.write("x")
        out = sys.stdout
        put("x", sys.stderr)
        sys.stdin.isatty() or sys.stdout.isatty()
        Console().print("x")
        logging.basicConfig(level=1)
        logging.basicConfig(handlers=[log_handler()])
        """)
    )
    found = {line.partition(":")[2] for line in printing(tmp_path)}
    assert found == {
        "2 print", "3 sys.stderr", "4 sys.stdout", "7 Console", "8 logging.basicConfig",
    }  # fmt: skip


def test_control_characters_are_shown_and_others_stay() -> None:
    assert visible(EVIL) == SHOWN + r"\u2028b\ud800\x00"
    kept = "two\n\tlines, ×, 日本語, 👩\u200d🚀, العربية"
    assert visible(kept) == kept


def clean(text: str) -> bool:
    return r"\x1b]52" in text and not UNSEEN.search(text)


def test_lines_and_errors_are_printed_visibly(capfd: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    assert clean(capfd.readouterr().out)

    def refuse() -> int:
        raise DataError(f"chats.jsonl: got a column {EVIL!s}, must be messages", f"rename {EVIL}")

    assert with_plain_errors(refuse) == 2
    error = capfd.readouterr().err
    assert clean(error)
    assert error.count("\n") == 2
    try:
        raise ValueError(EVIL)
    except ValueError as raised:
        hook_without_secrets(ValueError, raised, raised.__traceback__)
    assert clean(capfd.readouterr().err)
    say_in_a_mirror(EVIL)
    assert clean(capfd.readouterr().err)
    record = logging.LogRecord("x", logging.INFO, "x", 1, EVIL, (), None)
    log_handler().handle(record)
    assert clean(capfd.readouterr().err)


def test_only_our_own_colours_are_sent() -> None:
    out = io.StringIO()
    put(f"\x1b[1;32m{visible(EVIL)}\x1b[0m", out, coloured=True)
    assert out.getvalue() == f"\x1b[1;32m{visible(EVIL)}\x1b[0m\n"
    put("\x1b[1;32m\x1b]52;c;x\x07", out, coloured=True)
    assert r"\x1b]52;c;x\x07" in out.getvalue()


def test_a_terminal_that_cannot_spell_a_letter_gets_its_number() -> None:
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii")
    put("0.5 × 日", terminal)
    assert raw.getvalue() == b"0.5 \\xd7 \\u65e5\n"


def test_a_message_begins_no_line_of_a_log(capfd: pytest.CaptureFixture[str]) -> None:
    with shown(make_sweep(), plain=True) as log:
        log(f"t0000  failed (no\nerror: all is lost {EVIL})")
    lines = capfd.readouterr().out.splitlines()
    assert clean("".join(lines))
    assert lines[1].startswith(" " * 10 + "error: all is lost")


def test_the_live_view_sends_none() -> None:
    row = TrialLine(
        trial=EVIL, point={EVIL: EVIL}, step=1, steps=2, rows=1, tokens=1, rung=0, rungs=1,
        train_loss=1.0, eval_loss=1.0, losses=(1.0,), tokens_per_second=1.0, outcome=EVIL,
    )  # fmt: skip
    state = State(
        EVIL, EVIL, 1.0, total=2, tokens=1, device=EVIL, best=row, running=(row,), finished=(row,)
    )
    console = Console(file=io.StringIO(), width=160, color_system=None)
    console.print(view(state, 160))
    assert isinstance(console.file, io.StringIO)
    assert clean(console.file.getvalue())


def evil_sweep(folder: Path) -> Path:
    """A sweep that somebody else made."""
    events = [*EVENTS[:2], {**EVENTS[-1], "trial": "t0000", "message": EVIL}]
    found_in(folder, events)
    record = json.loads((folder / "sweep.json").read_text())
    record["git_revision"] = record["config"]["data"]["source"] = EVIL
    record["data"]["train"] |= {"tokens": 1000, "supervised_tokens": 9, "conversations": 3}
    (folder / "sweep.json").write_text(json.dumps(record))
    return folder


@pytest.mark.parametrize("command", [["results", "-v"], ["watch", "--plain"], ["report"]])
def test_commands_on_a_sweep_of_others_send_none(
    command: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = evil_sweep(tmp_path)
    with (folder / "journal.jsonl").open("a") as journal:
        for event in ("trial_ended", "sweep_ended"):
            trial = "t0001" if event == "trial_ended" else None
            fields = {"event": event, "trial": trial, "time": 2e9, "outcome": "failed"}
            journal.write(json.dumps({**fields, "message": EVIL}) + "\n")
    with pytest.raises(SystemExit, match=r"^0$"):
        main([command[0], str(folder), *command[1:]])
    out = capfd.readouterr().out
    assert not UNSEEN.search(out)
    if command[0] == "report":
        html = (folder / "report.html").read_text(encoding="utf-8")
        text = re.sub(r"<script.*?</script>", "", html, flags=re.S)
        assert clean(text)
    else:
        assert clean(out)


@pytest.mark.parametrize("coloured", [False, True])
def test_rows_of_a_pack_are_shown_visibly(coloured: bool, tmp_path: Path) -> None:
    said = EVIL.replace("\ud800", "")
    rows = [{"prompt": f"{number} {said}", "completion": said} for number in range(100)]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    packs = build_packs_here(
        DataConfig(str(path), max_length=256), str(DEMO), storage=str(tmp_path)
    )
    out = io.StringIO()
    put(inspect_text(packs, rows=1, color=coloured), out, coloured=True)
    colours = re.compile(r"\x1b\[(?:1;32|2|0)m")
    assert bool(colours.search(out.getvalue())) == coloured
    assert clean(colours.sub("", out.getvalue()))
