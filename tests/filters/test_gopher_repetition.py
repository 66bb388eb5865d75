import pyarrow as pa
import pytest

from headrace.filters.gopher_repetition import GopherRepetition
from headrace.filters.measures import MEASURES, measure

# Rae et al. 2021, arXiv:2112.11446, table A1.
TABLE_A1 = {
    "dup_paragraph_fraction": 0.30,
    "dup_paragraph_char_fraction": 0.20,
    "dup_line_fraction": 0.30,
    "dup_line_char_fraction": 0.20,
    "top_2_gram_char_fraction": 0.20,
    "top_3_gram_char_fraction": 0.18,
    "top_4_gram_char_fraction": 0.16,
    "dup_5_gram_char_fraction": 0.15,
    "dup_6_gram_char_fraction": 0.14,
    "dup_7_gram_char_fraction": 0.13,
    "dup_8_gram_char_fraction": 0.12,
    "dup_9_gram_char_fraction": 0.11,
    "dup_10_gram_char_fraction": 0.10,
}


def judged(rule, **values):
    measured = pa.table({name: pa.array([values.get(name, 0.0)], MEASURES[name]) for name in rule.measures})
    return rule.verdict(measured).to_pylist()[0]


@pytest.mark.parametrize("name, limit", TABLE_A1.items())
def test_published_thresholds(name, limit):
    assert judged(GopherRepetition(), **{name: limit}) is None
    assert judged(GopherRepetition(), **{name: limit + 0.0001}) == f"gopher_repetition:{name}"
    assert judged(GopherRepetition.model_validate({f"max_{name}": None}), **{name: 1.0}) is None


def test_tests_run_in_the_order_of_the_table():
    broken, order = dict.fromkeys(TABLE_A1, 0.9), []
    for name in TABLE_A1:
        order.append(judged(GopherRepetition(), **broken))
        del broken[name]
    assert order == [f"gopher_repetition:{name}" for name in TABLE_A1]
    assert judged(GopherRepetition(), **broken) is None


def distinct(first, words):
    return " ".join(f"w{first + i}" for i in range(words))


LONG = distinct(1000, 125) + "\n\n" + distinct(2000, 125)
AGAIN = distinct(0, 150)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("\n".join([*(distinct(9 * i, 9) for i in range(7)), "x", "x", "x", "x"]), None),  # 3 of 11 lines
        ("\n".join([*(distinct(9 * i, 9) for i in range(7)), "x", "x", "x", "x"][1:]), None),  # 3 of 10 are not more than 0.30
        ("\n".join([*(distinct(9 * i, 9) for i in range(7)), "x", "x", "x", "x"][2:]), "dup_line_fraction"),  # 3 of 9
        ("\n\n".join([*(distinct(9 * i, 9) for i in range(5)), "x", "x", "x", "x"]), "dup_paragraph_fraction"),
        (f"{LONG}\n{AGAIN}\n{AGAIN}", "dup_line_char_fraction"),
        (f"{LONG}\n\n{AGAIN}\n\n{AGAIN}", "dup_paragraph_char_fraction"),
        (f"{LONG} " + " ".join(f"spam here {i}" for i in range(10, 80)), "top_2_gram_char_fraction"),
        (f"{LONG} {AGAIN} {AGAIN}", "dup_5_gram_char_fraction"),
        (LONG, None),
    ],
)
def test_published_thresholds_on_texts(text, reason):
    rule = GopherRepetition()
    found = rule.verdict(measure(pa.array([text]), rule.measures)).to_pylist()[0]
    assert found == (reason and f"gopher_repetition:{reason}")


@pytest.mark.parametrize("n", range(5, 11))
def test_a_repeated_run_of_n_words_is_found_at_n(n):
    text = distinct(0, 60) + " " + distinct(100, n) + " " + distinct(200, 60) + " " + distinct(100, n)
    only = dict.fromkeys((f"max_{name}" for name in TABLE_A1), None) | {f"max_dup_{n}_gram_char_fraction": 0.0}
    rule = GopherRepetition.model_validate(only)
    found = rule.verdict(measure(pa.array([text]), rule.measures)).to_pylist()
    assert found == [f"gopher_repetition:dup_{n}_gram_char_fraction"]
    if n < 10:
        assert measure(pa.array([text]), [f"dup_{n + 1}_gram_char_fraction"]).to_pydict() == {f"dup_{n + 1}_gram_char_fraction": [0.0]}
