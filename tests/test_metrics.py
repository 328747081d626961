import pytest

from sftray.errors import ConfigError
from sftray.metrics import ANSWER_TOKENS, answer_tokens, exact_match, last_number, load_metric


def test_exact_match_looks_at_words() -> None:
    answers = ["Paris", " the  Seine\n", "Lyon"]
    assert exact_match(answers, ["paris", "The Seine", "Paris"]) == pytest.approx(2 / 3)


def test_the_last_number_is_what_gsm8k_asks_for() -> None:
    references = ["12 + 30 = 42\n#### 42", "#### 1,200", "#### 3", "#### -2.5"]
    answers = ["so it is 42.0", "1200", "none", "x = -2.5"]
    assert last_number(answers, references) == pytest.approx(3 / 4)
    assert last_number([], []) == 0


@pytest.mark.parametrize(
    ("answer", "number"),
    [("3-4", 4), ("so x = -4", -4), ("5 - 9 = −4", -4), ("(2)-4", 4), ("-4", -4), ("a-4", 4)],
)
def test_a_minus_between_two_numbers_is_none(answer: str, number: float) -> None:
    assert last_number([answer], [f"#### {number}"]) == 1
    assert last_number([answer], [f"#### {-number}"]) == 0


@pytest.mark.parametrize("name", ["nowhere:exact_match", "sftray.metrics:nothing", ":x"])
def test_a_metric_that_is_not_there_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(ConfigError, match="must be an importable 'module:function', as in"):
        load_metric(name)
    assert load_metric("sftray.metrics:exact_match") is exact_match


def test_an_answer_may_be_a_quarter_longer_than_the_longest_reference() -> None:
    assert answer_tokens([]) == answer_tokens([3, 20]) == ANSWER_TOKENS
    assert answer_tokens([3, 200]) == 251
