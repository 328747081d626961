"""report.html: whole, offline, and harmless whatever the data holds."""

from __future__ import annotations

import json
import math
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fake_folder import EVENTS, PACKS, RECORDED, START, ended, found_in, result

from sftray.cli.main import main
from sftray.config.points import short
from sftray.results import Results, load
from sftray.results.confirmation import half_width
from sftray.results.findings import learn
from sftray.results.leaderboard_text import above_text, confirmed_says, mean_text, recommended
from sftray.trial.samples import fixed_prompts, flagged, keep
from sftray.views.report.report import page, write_report

EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7 * 7 }}<!--"
SECTIONS = (
    "answer", "eval", "train", "rate", "rate-best", "parallel", "importance", "rungs", "timeline",
    "throughput", "so-far", "pareto", "trials", "diagnosis", "samples", "data",
)  # fmt: skip


class Tags(HTMLParser):
    """Every tag with its attributes, and the text outside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within not in ("script", "style"):
            self.text += f"{data} "


def words(html: str) -> str:
    """The page's text in one line."""
    return " ".join(Tags(html).text.split())


@pytest.fixture(scope="module")
def recorded() -> Results:
    return load(str(RECORDED))


@pytest.fixture(scope="module")
def html(recorded: Results) -> str:
    return page(recorded)


def test_every_section_is_there_with_its_figure(html: str) -> None:
    tags = Tags(html).tags
    ids = {attributes.get("id") for _, attributes in tags}
    assert ids >= set(SECTIONS)
    drawn = {attributes["data-figure"] for _, attributes in tags if "data-figure" in attributes}
    given = json.loads(html.partition('type="application/json">')[2].partition("</script>")[0])
    assert drawn == given.keys() == set(SECTIONS[1:12])


def test_the_answer_is_on_top(html: str, recorded: Results) -> None:
    text = words(html)
    best = recorded.best.iloc[0]
    top = text[: text.index("Learning curves")]
    for told in (
        f"learning_rate {short(best['learning_rate'])}",
        f"effective_batch_size {best['effective_batch_size']}", f"{best['eval_loss']:.4f}",
        "base 5.4998", "reloaded with plain PEFT", "CPU-hours",
        "learning_rate decides", f"The best is {recommended(recorded.leaderboard)}.",
        "AutoPeftModelForCausalLM", "sftray generate", "sftray merge",
    ):  # fmt: skip
        assert told in top


def test_trials_samples_data_and_versions_are_told(html: str, recorded: Results) -> None:
    text = words(html)
    for row in recorded.leaderboard["trials"]:
        assert row["verdict"] in text
        assert row["advice"] in text
    assert "repeats itself" in text
    for sample in recorded.samples.to_dict("records"):
        assert " ".join(sample["answer"].split()) in text
    for told in ("2,352", "90,050 (44.9 %)", "0.9 %", "generation markers", recorded.packs_key):
        assert told in text
    for version in recorded.record["versions"].values():
        assert version in text


def test_the_page_loads_nothing_and_may_not(html: str) -> None:
    for tag, attributes in Tags(html).tags:
        assert "src" not in attributes
        assert tag not in ("link", "iframe", "object", "img")
        assert attributes.get("href", "#").startswith("#")  # type: ignore[union-attr]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'nonce-")
    assert "http" not in policy[1]
    assert html.count("Copyright 2012") or html.count("plotly.js v")  # inlined
    assert len(html) < 6_000_000


@pytest.mark.slow
def test_nothing_from_the_data_becomes_markup(tmp_path: Path) -> None:
    shutil.copytree(RECORDED.parent, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "lr_batch"
    for path in [*folder.glob("trials/*/samples.jsonl"), folder / "base_samples.jsonl"]:
        samples = [json.loads(line) for line in path.read_text().splitlines()]
        for sample in samples:
            sample |= {"answer": EVIL, "reference": EVIL}
            sample["messages"] = [{"role": EVIL, "content": EVIL}, {"role": "user", "content": ""}]
        path.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    record = json.loads((folder / "sweep.json").read_text())
    record["config"]["data"]["source"] = record["git_revision"] = EVIL
    record["versions"]["torch"] = EVIL
    (folder / "sweep.json").write_text(json.dumps(record))
    (manifest,) = tmp_path.glob("packs/*/manifest.json")
    facts = json.loads(manifest.read_text())
    facts["splits"]["train"]["dropped"] = {EVIL: 3}
    manifest.write_text(json.dumps(facts))
    events = (folder / "journal.jsonl").read_text().splitlines()
    changed = [json.loads(line) for line in events]
    for event in changed:
        if event["event"] == "trial_ended":
            event |= {"outcome": "failed", "message": EVIL}
    (folder / "journal.jsonl").write_text("".join(json.dumps(event) + "\n" for event in changed))

    html = page(load(str(folder)))
    read = Tags(html)
    scripts = [attributes for tag, attributes in read.tags if tag == "script"]
    assert len(scripts) == 3
    assert len({attributes["nonce"] for attributes in scripts}) == 1
    for tag, attributes in read.tags:
        assert tag != "img"
        assert not [name for name in attributes if name.startswith("on")]
    assert read.text.count("alert(1)") >= 10  # shown, as text
    assert "{{ 7 * 7 }}" in read.text


def test_the_answer_at_any_time_stands_with_its_tokens(html: str, recorded: Results) -> None:
    found, text = learn(recorded).anytime, words(html)
    assert [round(one.share, 3) for one in found] == [0.111, 0.333, 1.0]
    for one in found:
        assert (
            f"{100 * one.share:.1f} % {one.tokens:,} {one.trial} {one.eval_loss:.4f} "
            f"{one.trial_best:.4f} " in text
        )
    searched = [one.best["eval_loss"] for one in recorded.records if one.best and not one.confirms]
    assert found[-1].eval_loss == min(searched)


def test_a_confirmation_is_told_with_how_sure_it_is(
    html: str, recorded: Results, tmp_path: Path
) -> None:
    text, confirmed = words(html), recorded.leaderboard["confirmed"]
    best, other = confirmed["points"]
    assert f"{mean_text(best)} (95 %)" in text
    mean, half = other["mean"], half_width(other)
    assert f"{other['trial']} {mean:.4f} ± {half:.4f} {above_text(other)} 3 " in text
    assert "; ".join(confirmed_says(confirmed)) in text
    assert f"{best['runs'][1]} repeats {best['trial']}, seed 2" in text
    assert text.count(" repeats t") == 6
    for word in ("nan", "None", "<NA>"):
        assert f" {word} " not in text
    assert "trial learning_rate effective_batch_size eval loss at step steps tokens" in text
    assert "run again" not in words(page(found_in(tmp_path, EVENTS)))


def test_a_winner_with_bad_answers_is_warned_of_on_top_and_shown_by_step(tmp_path: Path) -> None:
    flags = {"answer_flags": [["repeats", "no_end"], []]}
    last = {**ended("t0000", "completed", START + 181), "answer_flags": [[], []]}
    trained = result("t0000", 2, 2.5, 2, **flags)
    found = found_in(tmp_path, [*EVENTS[:3], trained, result("t0000", 3, 2.75, 3), last])
    for at, answer in ((2, "round and " * 12), (3, "An answer.")):
        prompts = fixed_prompts(PACKS, ["Who?"], 1)
        keep(f"{tmp_path}/trials/t0000", flagged(prompts, at, [(answer, True), ("Yes.", False)]))
    text = words(page(found))
    assert (
        "Of the best trial's sample answers 1 of 2 repeat themselves: read them first."
        in text[: text.index("Learning curves")]
    )
    samples = text[text.index("Greedy answers to the same prompts") :]
    assert "Who? t0000, step 2 repeats itself round and round and" in samples  # the best's
    assert "t0000 at each of its evaluations t0000, step 2" in samples
    assert "t0000, step 3 An answer." in samples
    assert "Held out? reference It is. t0000, step 2 cut off Yes." in samples
    trials = text[text.index("What became of each") :]
    assert "t0000 bad answers Bad answers: best eval loss 2.500 at step 2" in trials


@pytest.mark.slow
def test_a_report_can_be_made_at_every_moment_of_a_sweep(tmp_path: Path) -> None:
    for number in range(0, len(EVENTS) + 1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        text = words(page(found_in(folder, EVENTS[:number])))
        assert f"{sum(e['event'] == 'trial_ended' for e in EVENTS[:number])} of 16 trials" in text
    assert "Fine-tune with learning_rate 0.001" in text


@pytest.mark.slow
def test_the_command_writes_the_page_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RECORDED, tmp_path / "lr_batch")
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["report", str(tmp_path / "lr_batch")])
    path = capsys.readouterr().out.strip()
    assert path == f"{tmp_path}/lr_batch/report.html"
    assert Path(path).read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "not known here" in Path(path).read_text(encoding="utf-8")  # no packs beside it


@pytest.mark.ray
def test_a_sweep_ends_with_its_report(small_sweep: Results) -> None:
    html = Path(small_sweep.folder, "report.html").read_text(encoding="utf-8")
    assert "finished, 3 trials" in html
    assert "reloaded with plain PEFT" in html
    assert str(write_report(small_sweep.folder)).endswith("report.html")


def with_metric(events: list[Any]) -> list[Any]:
    return [{**one, "metric": 0.5} if one["event"] == "trial_ended" else one for one in events]


SWEEPS: dict[str, list[Any]] = {
    "pruned and diverged": EVENTS,
    "running": EVENTS[:6],
    "nothing yet": EVENTS[:2],
    "a metric": with_metric(EVENTS),
    "a diverged repetition": [
        *EVENTS,
        {"event": "trial_suggested", "trial": "t0002", "confirms": "t0000",
         "point": {"learning_rate": 1e-3, "seed": 1}},
        result("t0002", 2, math.nan, 4),
        ended("t0002", "diverged", START + 250, "loss is nan at step 2"),
    ],
    **{
        outcome: [*EVENTS[:5], ended("t0000", outcome, START + 200, "for a reason")]
        for outcome in ("failed", "preempted", "out_of_memory", "data_error", "completed")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SWEEPS)
def test_no_sweep_has_a_page_with_nan_none_or_an_empty_cell(name: str, tmp_path: Path) -> None:
    html = page(found_in(tmp_path, SWEEPS[name]))
    require_readable(html)


def test_the_recorded_sweeps_page_can_be_read(html: str) -> None:
    require_readable(html)


def test_an_empty_cell_is_found() -> None:
    with pytest.raises(AssertionError):
        require_readable("<table><tr><td> </td></tr></table>")
    with pytest.raises(AssertionError):
        require_readable("<p>repeats nan, seed 0</p>")


def require_readable(html: str) -> None:
    text = f" {words(html)} "
    for word in ("nan", "NaN", "None", "<NA>", "NaT"):
        found = re.search(rf"(?<![\w`]){word}(?![\w`])", text)
        assert found is None or "loss is" in text[found.start() - 12 : found.start()], found
    assert not re.findall(r"<td[^>]*>\s*</td>", html)
