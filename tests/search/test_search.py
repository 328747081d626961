import math
from collections import Counter, defaultdict
from functools import partial
from itertools import permutations
from pathlib import Path

import pytest
from fake_trials import ROWS, make_search, make_sweep, run
from killed_sweeps import check_made_again

from sftray.config import TrialConfig, choice, loguniform
from sftray.errors import JournalError
from sftray.plan.effective_batch import ONE_ROW
from sftray.plan.trial_plan import planner
from sftray.results.leaderboard import leaderboard
from sftray.results.records import Records
from sftray.search.asha import asha
from sftray.search.search import Search
from sftray.search.search_trials import Best, KnownTrial, Suggestion
from sftray.storage.journal import Event, Journal, read_events
from sftray.storage.journal.event_types import SUSPENDED

SPENT = {"tokens": 100, "supervised_tokens": 50, "seconds": 1.0, "gpu_seconds": 1.0}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.jsonl")


def timeless(events: list[Event]) -> list[str]:
    return [repr({key: event[key] for key in event if key != "time"}) for event in events]


@pytest.mark.slow
def test_a_killed_search_goes_on_as_if_nothing_had_happened(path: str) -> None:
    """After every event: what was begun is finished alike, and the next point is the same."""
    sweep = make_sweep()
    with Journal(path) as journal:
        run(sweep, make_search(sweep, journal))
    events = read_events(path)
    lines = Path(path).read_bytes().splitlines(keepends=True)
    suggested = 0
    for length in range(len(lines)):
        Path(path).write_bytes(b"".join(lines[:length]))
        with Journal(path) as journal:
            search = make_search(sweep, journal)
            finished = len(journal.events())
            assert timeless(journal.events()) == timeless(events[:finished])
            following = events[finished] if finished < len(events) else {"event": None}
            if following["event"] == "trial_suggested":
                expected = Suggestion(following["trial"], following["point"])
                assert search.suggest() == expected
                suggested += 1
    assert suggested >= sweep.num_trials


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", [0, 1, *(pytest.param(n, marks=pytest.mark.exhaustive) for n in (2, 3, 4))]
)
def test_every_trial_ends_once_however_often_the_driver_dies(path: str, order: int) -> None:
    sweep = make_sweep()
    lengths = [3, 11, 12, 30, 31, 32, 60, 100, 10_000]
    for length in lengths:
        with Journal(path) as journal:
            run(sweep, make_search(sweep, journal), order=order)
        if length < 10_000:
            lines = Path(path).read_bytes().splitlines(keepends=True)
            Path(path).write_bytes(b"".join(lines[:length]) + lines[length][: length % 7])
    counts = Counter(
        (e["event"], e["trial"], e.get("step"), e.get("attempt")) for e in journal.events()
    )
    assert set(counts.values()) == {1}
    ended = [event["trial"] for event in journal.events() if event["event"] == "trial_ended"]
    assert sorted(ended) == [f"t{number:04d}" for number in range(sweep.num_trials)]


def test_journalled_decisions_are_ashas_within_each_bracket(path: str) -> None:
    sweep = make_sweep(num_trials=40)
    with Journal(path) as journal:
        run(sweep, make_search(sweep, journal), slots=5)
    losses = {
        (event["trial"], event["step"]): event["metrics"]["eval_loss"]
        for event in journal.events()
        if event["event"] == "result"
    }
    rungs: dict[tuple[str, int], list[float]] = defaultdict(list)
    decisions: Counter[str] = Counter()
    for event in journal.events():
        if event["event"] == "decision":
            loss = losses[event["trial"], event["step"]]
            recorded = rungs[event["bracket"], event["rung"]]
            again = asha(recorded, loss, sweep.reduction_factor)
            assert event["decision"] == ("continue" if again.goes_on else "stop")
            assert event["cutoff"] == again.cutoff
            recorded.append(loss)
            decisions[event["decision"]] += 1
    assert min(decisions.values()) > 5
    assert {bracket for bracket, _ in rungs} == {"1 epochs", "2 epochs"}


def test_trials_at_a_rung_have_seen_the_same_rows(path: str) -> None:
    sweep = make_sweep(num_trials=30)
    with Journal(path) as journal:
        run(sweep, make_search(sweep, journal))
    rows = {
        (event["trial"], event["step"]): event["metrics"]["rows"]
        for event in journal.events()
        if event["event"] == "result"
    }
    for event in journal.events():
        if event["event"] == "decision":
            # the batch sizes' least common multiple, 8, is below the first rung
            assert rows[event["trial"], event["step"]] == event["rung"]


def test_a_result_that_comes_again_keeps_its_record_and_decision(path: str) -> None:
    sweep = make_sweep(points=tuple({"learning_rate": rate} for rate in (1e-3, 1e-4, 1e-5)))
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        for _ in sweep.points:
            search.suggest()
        step = next(step for step in range(1, 16) if is_decided(search, journal, "t0000", step))
        assert search.record("t0000", {"step": step, "eval_loss": 99.0}) == "continue"
        assert search.record("t0001", {"step": step, "eval_loss": 40.0}) == "continue"
        assert search.record("t0002", {"step": step, "eval_loss": 50.0}) == "stop"
        assert search.record("t0002", {"step": step, "eval_loss": 0.0}) == "stop"
        assert search.outcome_of("t0002") == "pruned"
        assert search.best() == Best("t0000", 1, 1.0)
        before = journal.events()
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        assert search.record("t0000", {"step": step, "eval_loss": 99.0}) == "continue"
        assert journal.events() == before


@pytest.mark.parametrize("order", list(permutations(range(4)))[::5])
def test_trials_that_come_to_a_rung_together_are_judged_alike_in_any_order(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    losses = [1.0, 2.0, 3.0, 4.0]
    sweep = make_sweep(points=tuple({"learning_rate": 1e-3} for _ in losses))
    path = str(tmp_path / "journal.jsonl")
    names = [f"t{number:04d}" for number in range(4)]
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        for _ in losses:
            search.suggest()
        step = next(step for step in range(1, 16) if is_decided(search, journal, "t0000", step))
        search.end("t0000", "completed")
    with Journal(str(tmp_path / "again.jsonl")) as journal:
        search = make_search(sweep, journal)
        for _ in losses:
            search.suggest()
        for number in order:
            peers = [[names[other], losses[other]] for other in range(4) if other != number]
            metrics = {"step": step, "eval_loss": losses[number], "rung_peers": peers}
            search.record(names[number], metrics)
        assert [search.outcome_of(name) for name in names] == [None, None, "pruned", "pruned"]


def is_decided(search: Search, journal: Journal, trial: str, step: int) -> bool:
    """Record a loss of 1 at a step; whether that was a rung."""
    search.record(trial, {"step": step, "eval_loss": 1.0})
    return bool(journal.events()[-1]["event"] == "decision")


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_trial_and_stays_out_of_the_rungs(
    path: str, loss: float
) -> None:
    sweep = make_sweep(points=({"learning_rate": 1e-3}, {"learning_rate": 1e-1}))
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        for _ in range(2):
            search.suggest()
        decided = [step for step in range(1, 16) if is_decided(search, journal, "t0000", step)]
        assert search.record("t0001", {"step": decided[0], "eval_loss": loss}) == "stop"
        assert search.outcome_of("t0001") == "diverged"
        assert f"step {decided[0]}" in journal.events()[-1]["message"]
        assert sum(event["event"] == "decision" for event in journal.events()) == len(decided)


def test_the_trials_own_outcome_and_words_go_before_ours(path: str) -> None:
    sweep = make_sweep(points=({}, {}))
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        search.suggest()
        report = {"step": 3, "eval_loss": math.nan}
        assert search.record("t0000", report, "diverged", "loss NaN at step 3, rows 6–8") == "stop"
        assert journal.events()[-1]["message"] == "loss NaN at step 3, rows 6–8"
        search.end("t0000", "failed", "too late")
        assert search.outcome_of("t0000") == "diverged"
        search.suggest()
        with pytest.raises(ValueError, match=r"got 'exploded', must be one of completed, pruned"):
            search.end("t0001", "exploded")


def test_the_bases_own_loss_is_no_trials_best(path: str) -> None:
    sweep = make_sweep(points=({},))
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        search.suggest()
        search.record("t0000", {"step": 0, "eval_loss": 1.0})
        assert search.best() is None
        search.record("t0000", {"step": 1, "eval_loss": 5.0})
        search.record("t0000", {"step": 2, "eval_loss": 4.0})
        search.record("t0000", {"step": 3, "eval_loss": 6.0})
        search.record("t0000", {"step": 4})
        assert search.best() == Best("t0000", 2, 4.0)


def test_a_trial_that_returns_is_completed_only_after_its_last_step(path: str) -> None:
    sweep = make_sweep(points=({}, {}))
    last = ROWS // sweep.trial.effective_batch_size
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        search.suggest()
        search.suggest()
        search.record("t0000", {"step": last, "eval_loss": 1.0})
        search.returned("t0000")
        search.returned("t0001")
        assert search.outcome_of("t0000") == "completed"
        assert search.outcome_of("t0001") == "failed"


def test_points_given_are_run_as_given_and_no_others(path: str) -> None:
    points = ({"learning_rate": 1e-3}, {"learning_rate": 1e-3}, {"lora_r": 4})
    sweep = make_sweep(points=points, num_trials=1)
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        assert [search.suggest() for _ in range(4)] == [
            Suggestion("t0000", points[0]),
            Suggestion("t0001", points[1]),
            Suggestion("t0002", points[2]),
            None,
        ]


def test_a_suggestion_is_in_the_journal_before_it_is_returned(path: str) -> None:
    with Journal(path) as journal:
        suggestion = make_search(make_sweep(), journal).suggest()
        assert suggestion
        assert read_events(path)[-1]["trial"] == suggestion.trial
        assert read_events(path)[-1]["point"] == suggestion.point


def test_a_journal_of_another_sweep_is_refused(path: str) -> None:
    sweep = make_sweep()
    with Journal(path) as journal:
        make_search(sweep, journal).suggest()
        other = make_sweep(search_space={"weight_decay": loguniform(1e-3, 1e-1)})
        with pytest.raises(JournalError, match="belongs to another sweep"):
            make_search(other, journal)


def test_failed_attempts_are_counted_and_the_last_words_kept(path: str) -> None:
    sweep = make_sweep(points=({},))
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        search.suggest()
        assert search.attempt("t0000") == 1
        search.attempt_ended("t0000", "the node went away")
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        assert search.unfinished() == [Suggestion("t0000", {})]
        assert search.attempt("t0000") == 2
        search.attempt_ended("t0000", "again")
        search.gave_up("t0000")
        assert journal.events()[-1]["message"] == "again"
        assert search.unfinished() == []


def test_tpe_finds_the_right_learning_rate(path: str) -> None:
    found = []
    for seed in range(5):
        sweep = make_sweep(
            seed=seed,
            num_trials=24,
            search_space={
                "learning_rate": loguniform(1e-5, 1e-1),
                "effective_batch_size": choice([2, 4]),
            },
        )
        with Journal(f"{path}{seed}") as journal:
            search = make_search(sweep, journal)
            run(sweep, search)
            best = search.best()
            assert best
            point = next(e["point"] for e in journal.events() if e["trial"] == best.trial)
            found.append(abs(math.log10(point["learning_rate"] / 1e-3)))
    assert sorted(found)[2] < 0.15  # median over seeds, in decades of the four searched


def test_a_trial_that_does_not_fit_ends_before_it_begins_and_never_reaches_asha(path: str) -> None:
    sweep = make_sweep(
        num_trials=24,
        search_space={"lora_r": choice([4, 8, 16, 512]), "learning_rate": loguniform(1e-4, 1e-2)},
    )
    with Journal(path) as journal:
        search = make_search(sweep, journal, too_large=at_most_16)
        run(sweep, search)
        events = journal.events()
    ranks = {e["trial"]: e["point"]["lora_r"] for e in events if e["event"] == "trial_suggested"}
    refused = {trial for trial, rank in ranks.items() if rank == 512}
    ended = {
        e["trial"]: (e["outcome"], e["message"]) for e in events if e["event"] == "trial_ended"
    }
    assert len(ranks) == len(ended) == 24
    assert 0 < len(refused) < 12
    for trial in refused:
        assert ended[trial] == ("out_of_memory", "rank 512 is too much")
    others = [e for e in events if e["event"] not in ("trial_suggested", "trial_ended")]
    assert not refused & {event["trial"] for event in others}
    # a violated constraint teaches TPE: it comes back to such points less often than chance would
    assert sum(ranks[f"t{number:04d}"] == 512 for number in range(8, 24)) < 4


def test_a_trial_that_was_suggested_and_not_yet_refused_is_refused_at_the_restart(
    path: str,
) -> None:
    sweep = make_sweep(search_space={"lora_r": choice([512])}, num_trials=1)
    with Journal(path) as journal:
        assert make_search(sweep, journal).suggest() is not None
    with Journal(path) as journal:
        search = make_search(sweep, journal, too_large=at_most_16)
        assert search.unfinished() == []
        assert search.outcome_of("t0000") == "out_of_memory"


def at_most_16(trial: TrialConfig) -> str | None:
    return f"rank {trial.lora_r} is too much" if trial.lora_r > 16 else None


def test_no_point_is_suggested_twice_and_a_small_space_ends(path: str) -> None:
    space = {"learning_rate": choice([1e-4, 1e-3, 1e-2]), "lora_r": choice([4, 8])}
    sweep = make_sweep(search_space=space, num_trials=20)
    with Journal(path) as journal:
        run(sweep, make_search(sweep, journal))
        points = [e["point"] for e in journal.events() if e["event"] == "trial_suggested"]
    assert len(points) == 6
    assert len({repr(sorted(point.items())) for point in points}) == 6
    with Journal(path) as journal:  # and it has ended: nothing is left to suggest
        assert make_search(sweep, journal).suggest() is None


def test_a_search_begins_with_the_points_that_it_is_given(path: str) -> None:
    first = [
        {"learning_rate": rate, "effective_batch_size": 4, "num_train_epochs": 1}
        for rate in (1e-3, 2e-3)
    ]
    sweep = make_sweep()
    with Journal(path) as journal:
        search = make_search(sweep, journal, first=[first[0], first[0], first[1]])
        found = [search.suggest() for _ in range(4)]
    assert [one.point for one in found if one][:2] == first
    assert len({one.trial for one in found if one}) == 4


def test_a_diverged_trial_counts_as_bad_and_bends_nothing(path: str) -> None:
    """Half the range diverges: TPE keeps away from it, and is told no infinity."""
    sweep = make_sweep(
        search_space={"learning_rate": loguniform(1e-5, 1e1)}, num_trials=60, scheduler="none"
    )
    with Journal(path) as journal:
        run(sweep, make_search(sweep, journal))
        events = journal.events()
    rates = [e["point"]["learning_rate"] for e in events if e["event"] == "trial_suggested"]
    diverged = [e for e in events if e["event"] == "trial_ended" and e["outcome"] == "diverged"]
    assert diverged, "some of the first points are in the bad half"
    later = [rate for rate in rates[20:] if rate > 5e-2]
    assert len(later) < 0.15 * len(rates[20:])
    assert min(abs(math.log10(rate / 1e-3)) for rate in rates) < 0.1


def test_the_best_points_are_run_again_with_new_seeds_and_are_not_judged(path: str) -> None:
    sweep = make_sweep(num_trials=12, confirm_top=2, confirm_seeds=3)
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        run(sweep, search)
        assert search.remaining() == 0
        best = search.best()
        assert best is not None
        assert search.confirm()
        assert search.remaining() == 6
        run(sweep, search)
        assert not search.confirm()
        events = journal.events()
    repeats = [e for e in events if e.get("confirms")]
    assert [e["point"]["seed"] for e in repeats] == [1, 1, 2, 2, 3, 3]
    chosen = [e["trial"] for e in events if e["event"] == "confirmation"]
    assert len(chosen) == 2
    assert best.trial in chosen
    assert Counter(e["confirms"] for e in repeats) == dict.fromkeys(chosen, 3)
    names = {e["trial"] for e in repeats}
    assert not [e for e in events if e["event"] == "decision" and e["trial"] in names]
    assert {
        e["outcome"] for e in events if e["event"] == "trial_ended" and e["trial"] in names
    } == {"completed"}


def test_a_confirmation_goes_on_after_any_death(path: str) -> None:
    sweep = make_sweep(num_trials=6, confirm_top=2, confirm_seeds=2)
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        run(sweep, search)
        search.confirm()
        run(sweep, search)
        whole = journal.events()
    lines = Path(path).read_bytes().splitlines(keepends=True)
    for length in range(len(lines) // 2, len(lines), 3):
        Path(path).write_bytes(b"".join(lines[:length]))
        with Journal(path) as journal:
            search = make_search(sweep, journal)
            run(sweep, search)
            search.confirm()
            run(sweep, search)
            again = journal.events()
        for event in ("trial_suggested", "trial_ended", "confirmation"):
            found, expected = (
                Counter(str(e.get("point")) for e in events if e["event"] == event)
                for events in (again, whole)
            )
            assert found == expected


def test_a_trial_without_improvement_ends_itself(path: str) -> None:
    sweep = make_sweep(points=({},), scheduler="none", early_stopping_patience=2)
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        search.suggest()
        for step, loss in ((0, 9.0), (2, 3.0), (4, 2.0), (6, 2.5)):
            assert search.record("t0000", {"step": step, "eval_loss": loss}) == "continue"
        assert search.record("t0000", {"step": 8, "eval_loss": 2.0}) == "stop"
        assert search.outcome_of("t0000") == "completed"
        assert "2 evaluations without improvement" in journal.events()[-1]["message"]


def test_trials_of_another_sweep_are_known_and_not_run_again(path: str) -> None:
    space = {"learning_rate": choice([1e-4, 1e-3, 1e-2]), "lora_r": choice([4, 8])}
    sweep = make_sweep(search_space=space, num_trials=20)
    point = {"learning_rate": 1e-3, "lora_r": 8}
    results = [{"step": 0, "eval_loss": 5.0}, {"step": 9, "eval_loss": 1.0}]
    known = KnownTrial(point, results, "completed", "other", "other/trials/t0007")
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        search.take_over([known])
        assert search.best() == Best("t0000", 9, 1.0)
        run(sweep, search)
        before = journal.events()
    suggested = [e for e in before if e["event"] == "trial_suggested"]
    assert len(suggested) == 6, "the known one and five others"
    assert [e["folder"] for e in suggested if "folder" in e] == ["other/trials/t0007"]
    attempts = [e["trial"] for e in before if e["event"] == "attempt_started"]
    assert "t0000" not in attempts
    with Journal(path) as journal:  # a restart neither runs nor takes it again
        search = make_search(sweep, journal)
        search.take_over([known])
        assert search.suggest() is None
        assert timeless(journal.events()) == timeless(before)


def test_the_highest_metric_is_the_best_whatever_its_loss(path: str) -> None:
    sweep = make_sweep(
        search_space={"learning_rate": loguniform(1e-4, 1e-1)},
        num_trials=40,
        scheduler="none",
        objective="metric",
        metric="sftray.metrics:exact_match",
    )
    with Journal(path) as journal:
        search = make_search(sweep, journal)
        while suggestion := search.suggest():
            rate = suggestion.point["learning_rate"]
            score = 1 - abs(math.log10(rate / 3e-3)) / 2
            last = {**SPENT, "step": 60, "rows": 240, "eval_loss": rate, "gpu_seconds": 1.0}
            search.record(suggestion.trial, {**last, "metric": score}, "completed")
        board = leaderboard(sweep, Records(journal.events()))
    best = board["trials"][0]
    assert board["best"] == best["trial"]
    assert best["metric"] == max(row["metric"] for row in board["trials"]) > 0.95
    assert best["eval_loss"] > min(row["eval_loss"] for row in board["trials"])


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_trials_are_judged_at_rungs_by_the_metric_whatever_their_loss(
    path: str, better: str
) -> None:
    """The metric falls with the loss: the best are those of the highest losses, or the lowest."""
    metric = {"metric": "sftray.metrics:exact_match", "metric_at": "rungs"}
    points = tuple({"learning_rate": 1e-3} for _ in range(4))
    sweep = make_sweep(points=points, objective="metric", metric_is_better=better, **metric)
    values = [0.4, 0.3, 0.2, 0.1]
    plan = planner(sweep, ROWS, execution=ONE_ROW)(sweep.trial.at(points[0]))
    step = plan.rungs[0].step
    for _ in ("written", "replayed"):
        with Journal(path) as journal:
            search = make_search(sweep, journal)
            for number, value in enumerate(values):
                trial = f"t{number:04d}"
                if trial not in {one["trial"] for one in journal.events()}:
                    search.suggest()
                peers = [[f"t{k:04d}", other] for k, other in enumerate(values) if k != number]
                report = {**SPENT, "step": step, "rows": 4 * step, "eval_loss": value}
                search.record(trial, {**report, "metric": value, "rung_peers": peers})
            stopped = [search.outcome_of(f"t{number:04d}") for number in range(4)]
    right = [None, None, "pruned", "pruned"]
    assert stopped == (right if better == "higher" else right[::-1])
    events = [one for one in journal.events() if one["event"] == "decision"]
    assert [one["metric"] for one in events] == values
    assert all(0.1 <= one["cutoff"] <= 0.4 for one in events)
    board = leaderboard(sweep, Records(journal.events()))
    pruned = next(row for row in board["trials"] if row["outcome"] == "pruned")
    assert "its metric 0." in pruned["verdict"]
    assert "is worse than the cutoff of 0." in pruned["verdict"]


@pytest.mark.parametrize("what", [SUSPENDED, "preempted", "failed", "outage"])
def test_attempts_that_end_change_no_suggestion_no_decision_and_no_place(
    what: str, tmp_path: Path
) -> None:
    """TPE and the leaderboard hear of evaluations and ends, and of nothing between them."""
    sweep = make_sweep(num_trials=12)
    with Journal(str(tmp_path / "quiet.jsonl")) as journal:
        run(sweep, make_search(sweep, journal))
        quiet = journal.events()
    disturbed: list[Event] = []
    attempts: Counter[str] = Counter()
    for event in quiet:
        disturbed.append(event)
        attempts[event["trial"]] += event["event"] in ("attempt_started", "result")
        if event["event"] == "result":
            again = {"trial": event["trial"], "time": event["time"], "message": "cut off"}
            number = attempts[event["trial"]]
            disturbed += [
                {**again, "event": "attempt_ended", "attempt": number - 1, "class": what},
                {**again, "event": "attempt_started", "attempt": number},
            ]
    assert leaderboard(sweep, Records(disturbed)) == leaderboard(sweep, Records(quiet))
    for number, event in enumerate(disturbed):
        if event["event"] in ("trial_suggested", "decision"):
            make = partial(make_search, sweep)
            check_made_again(make, disturbed, number, tmp_path / "prefix.jsonl")
