import math

import numpy as np
import pytest

from headrace.evaluate.metrics import BitsPerByte, DocumentScores, NextTokenAccuracy, TokenPerplexity, estimate, rows


def test_a_uniform_byte_model_scores_eight_bits_per_byte():
    num_bytes = np.array([10, 1000])
    assert BitsPerByte().score(num_bytes * math.log(256), num_bytes) == pytest.approx(8.0)


def test_a_uniform_model_s_perplexity_is_its_vocabulary():
    tokens = np.array([3, 50])
    assert TokenPerplexity().score(tokens * math.log(512), tokens) == pytest.approx(512)


def test_accuracy_weighs_tokens_not_documents():
    assert NextTokenAccuracy().score(np.array([1, 0]), np.array([1, 9])) == pytest.approx(0.1)


def test_equal_documents_have_no_error():
    found = estimate(BitsPerByte(), {"nats": np.full(20, math.log(2) * 5), "num_bytes": np.full(20, 5)})
    assert found.value == pytest.approx(1.0)
    assert found.stderr == pytest.approx(0.0, abs=1e-12)
    assert found.ci95 == pytest.approx((1.0, 1.0))
    assert found.n_documents == 20


def test_the_standard_error_is_that_of_a_mean():
    # With documents of equal length the score is a mean, whose standard error is known: s / sqrt(n).
    generator = np.random.default_rng(1)
    nats = generator.normal(500.0, 50.0, size=400)
    found = estimate(BitsPerByte(), {"nats": nats, "num_bytes": np.full(400, 100)})
    expected = nats.std() / math.sqrt(400) / (100 * math.log(2))
    assert found.stderr == pytest.approx(expected, rel=0.1)
    low, high = found.ci95
    assert low < found.value < high
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.15)


def test_the_interval_is_the_same_every_time():
    columns = {"nats": np.array([3.0, 9.0, 4.0]), "num_bytes": np.array([2, 5, 6])}
    assert estimate(BitsPerByte(), columns) == estimate(BitsPerByte(), columns)


def test_one_document_has_no_interval():
    found = estimate(TokenPerplexity(), {"nats": np.array([2.0]), "tokens": np.array([2])})
    assert (found.value, found.stderr, found.ci95) == (pytest.approx(math.e), None, None)


def scores(source, nats):
    size = len(source)
    return DocumentScores(source, np.arange(size), np.full(size, 4), np.full(size, 10), np.array(nats), np.full(size, 1))


def test_rows_give_every_metric_for_all_and_for_each_source():
    found = rows(scores(["web", "books", "web"], [4.0, 8.0, 4.0]))
    assert [(row["source"], row["metric"]) for row in found[:4]] == [
        ("all", "bits_per_byte"),
        ("all", "token_perplexity"),
        ("all", "next_token_accuracy"),
        ("books", "bits_per_byte"),
    ]
    values = {(row["source"], row["metric"]): row["value"] for row in found}
    assert values["web", "token_perplexity"] == pytest.approx(math.e)
    assert values["all", "bits_per_byte"] == pytest.approx(16 / (math.log(2) * 30))
    assert values["books", "next_token_accuracy"] == pytest.approx(0.25)
    assert {row["unit"] for row in found} == {"bits/byte", "perplexity/token", "share of tokens"}


@pytest.mark.parametrize("nats", [math.nan, math.inf, 1e6])
def test_a_diverged_model_has_no_value_and_breaks_nothing(nats):
    (row,) = [row for row in rows(scores(["a", "a"], [nats, 1.0])) if row["metric"] == "token_perplexity" and row["source"] == "all"]
    assert row["value"] is None
    assert row["stderr"] is None
