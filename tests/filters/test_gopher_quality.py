import pyarrow as pa
import pytest
from pydantic import ValidationError

from headrace.filters.gopher_quality import GopherQuality
from headrace.filters.measures import MEASURES, measure

# Rae et al. 2021, arXiv:2112.11446, A1.1: each bound, the nearest value beyond it, and the reason there.
PUBLISHED = [
    ("words", 50, 49, "too_few_words"),
    ("words", 100_000, 100_001, "too_many_words"),
    ("mean_word_chars", 3.0, 2.99, "words_too_short"),
    ("mean_word_chars", 10.0, 10.01, "words_too_long"),
    ("hash_word_ratio", 0.1, 0.1001, "too_many_hashes"),
    ("ellipsis_word_ratio", 0.1, 0.1001, "too_many_ellipses"),
    ("bullet_line_fraction", 0.9, 0.9001, "too_many_bullet_lines"),
    ("ellipsis_line_fraction", 0.3, 0.3001, "too_many_ellipsis_lines"),
    ("alpha_word_fraction", 0.8, 0.7999, "too_few_alpha_words"),
    ("stop_words", 2, 1, "too_few_stop_words"),
]
GOOD = {
    "words": 500,
    "mean_word_chars": 4.7,
    "hash_word_ratio": 0.0,
    "ellipsis_word_ratio": 0.0,
    "bullet_line_fraction": 0.0,
    "ellipsis_line_fraction": 0.0,
    "alpha_word_fraction": 0.95,
    "stop_words": 8,
}


def judged(rule, **values):
    measured = pa.table({name: pa.array([value], MEASURES[name]) for name, value in {**GOOD, **values}.items()})
    return rule.verdict(measured).to_pylist()[0]


@pytest.mark.parametrize("name, bound, beyond, reason", PUBLISHED)
def test_published_thresholds(name, bound, beyond, reason):
    assert judged(GopherQuality(), **{name: bound}) is None
    assert judged(GopherQuality(), **{name: beyond}) == f"gopher_quality:{reason}"


def test_tests_run_in_the_published_order():
    broken = {name: beyond for name, _, beyond, _ in PUBLISHED}
    order = []
    for name, bound, beyond, _ in PUBLISHED:
        order.append(judged(GopherQuality(), **{**broken, name: beyond}))
        broken[name] = bound
    assert order == [f"gopher_quality:{reason}" for _, _, _, reason in PUBLISHED]


WORD = "the and word "  # two stop words, ten letters of three words


@pytest.mark.parametrize(
    "text, reason",
    [
        (WORD * 16 + "the end", None),  # 50 words
        (WORD * 16 + "end", "too_few_words"),
        (WORD * 16 + "end ---", "too_few_words"),  # a symbol is no word
        ("the of " * 10 + "a " * 30, "words_too_short"),
        ("the of " + "abcdefghijkl " * 60, "words_too_long"),
        (WORD * 30 + "# " * 10, None),  # 10 / 100 words
        (WORD * 30 + "# " * 11, "too_many_hashes"),
        ("... " * 5 + "… " * 5 + WORD * 30, None),
        ("... " * 5 + "… " * 6 + WORD * 30, "too_many_ellipses"),
        ("- the and word list\n" * 18 + "the and\nmore words\n", None),  # 18 of 20 lines
        ("- the and word list\n" * 19 + "the and more words\n", "too_many_bullet_lines"),
        ("the and word list...\n" * 3 + "the and word list of ten lines here\n" * 7, None),
        ("the and word list...\n" * 4 + "the and word list of ten lines here\n" * 6, "too_many_ellipsis_lines"),
        ("the and 1234 word of " * 20, None),  # four of five words
        ("the and 1234 word of " * 20 + "5678", "too_few_alpha_words"),
        ("The article says what is said. " * 12, "too_few_stop_words"),  # one stop word, twelve times
        ("The article of what is said. " * 12, None),
    ],
)
def test_published_thresholds_on_texts(text, reason):
    rule = GopherQuality()
    found = rule.verdict(measure(pa.array([text]), rule.measures)).to_pylist()[0]
    assert found == (reason and f"gopher_quality:{reason}")


@pytest.mark.parametrize("name, bound, beyond, reason", PUBLISHED)
def test_every_test_can_be_kept_off(name, bound, beyond, reason):
    off = {f"min_{name}": 0} if beyond < bound else {f"max_{name}": None}
    assert judged(GopherQuality.model_validate(off), **{name: beyond}) is None


def test_a_foreign_text_passes_without_the_stop_words():
    text = "Der Text ist auf Deutsch geschrieben und hat kein englisches Wort. " * 5
    measured = measure(pa.array([text]), GopherQuality.measures)
    assert GopherQuality().verdict(measured).to_pylist() == ["gopher_quality:too_few_stop_words"]
    assert GopherQuality(min_stop_words=0).verdict(measured).to_pylist() == [None]


def test_a_misspelt_threshold_is_refused():
    with pytest.raises(ValidationError, match="min_wrods"):
        GopherQuality.model_validate({"min_wrods": 5})
