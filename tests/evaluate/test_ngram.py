import math
from collections import Counter, defaultdict
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.evaluate.config import EvaluateConfig
from headrace.evaluate.ngram import (
    FALLBACK_DISCOUNTS,
    KneserNey,
    Stream,
    Unigram,
    count,
    discounts,
    score_baselines,
)
from headrace.tokens.store import write_store

EOS = 0


def stream(documents):
    return Stream.of([np.array([*document, EOS]) for document in documents], EOS)


def probability(model, history, word):
    """p(word | a document that begins with history)."""
    return math.exp(model.log_probability(Stream.of([np.array([*history, word])], EOS))[-1])


class SlowKneserNey:
    """The same model by its definition, over tuples and dictionaries."""

    def __init__(self, documents, vocab_size, order):
        self.vocab_size, self.order = vocab_size, order
        raw = defaultdict(Counter)
        before = defaultdict(set)
        for document in documents:
            tokens = ["<s>", *document, EOS]
            for end in range(1, len(tokens)):
                for length in range(1, min(order, end + 1) + 1):
                    gram = tuple(tokens[end - length + 1 : end + 1])
                    raw[length][gram] += 1
                    if end - length >= 0:
                        before[gram].add(tokens[end - length])
        self.counts = {
            length: {gram: n if length == order or gram[0] == "<s>" else len(before[gram]) for gram, n in raw[length].items()}
            for length in range(1, order + 1)
        }
        self.discounts = {length: self._discounts(counts.values()) for length, counts in self.counts.items()}

    @staticmethod
    def _discounts(values):
        n = Counter(values)
        if not (n[1] and n[2] and n[3]):
            return (0.5, 1.0, 1.5)
        y = n[1] / (n[1] + 2 * n[2])
        found = (1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3])
        return found if all(0 < d <= k for k, d in enumerate(found, 1)) else (0.5, 1.0, 1.5)

    def probability(self, history, word):
        length = len(history) + 1
        lower = self.probability(history[1:], word) if history else 1 / self.vocab_size
        continued = {gram[-1]: n for gram, n in self.counts[length].items() if gram[:-1] == history}
        if not continued:
            return lower
        discount = dict(zip((1, 2, 3), self.discounts[length]))
        total = sum(continued.values())
        rest = sum(discount[min(n, 3)] for n in continued.values()) / total
        own = continued.get(word, 0)
        return (own - discount[min(own, 3)] if own else 0) / total + rest * lower


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@settings(max_examples=40, deadline=None)
@given(
    documents=st.lists(st.lists(st.integers(1, 4), max_size=12), min_size=1, max_size=8),
    held_out=st.lists(st.integers(1, 5), min_size=1, max_size=8),
)
def test_equals_the_definition_over_dictionaries(order, documents, held_out):
    vocab_size = 6
    model = KneserNey(count(stream(documents), vocab_size, order), vocab_size)
    slow = SlowKneserNey(documents, vocab_size, order)
    tokens = ["<s>", *held_out, EOS]
    expected = [math.log(slow.probability(tuple(tokens[max(0, end - order + 1) : end]), tokens[end])) for end in range(1, len(tokens))]
    found = model.log_probability(stream([held_out]))
    assert found[1:] == pytest.approx(expected, abs=1e-12)
    assert found[0] == 0


@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one_after_every_history(order):
    generator = np.random.default_rng(3)
    vocab_size = 7  # token 6 is never seen
    documents = [generator.integers(1, 6, size=generator.integers(1, 60)).tolist() for _ in range(40)]
    model = KneserNey(count(stream(documents), vocab_size, order), vocab_size)
    seen, unseen = 0, 0
    for history in [(), *product(range(1, 7), repeat=2), *product((1, 3, 6), repeat=5)]:
        assert sum(probability(model, history, word) for word in range(vocab_size)) == pytest.approx(1.0, abs=1e-9)
        seen, unseen = seen + (6 not in history), unseen + (6 in history)
    assert seen and unseen


def test_bigram_worked_by_hand():
    # a b a c: bigrams <s>a ab ba ac c</s>, each once; so no discount can be estimated and D1 = 1/2.
    eos, a, b, c = range(4)
    model = KneserNey(count(stream([[a, b, a, c]]), 4, 2), 4)
    assert model.orders[1].discounts == FALLBACK_DISCOUNTS
    # Distinct tokens before: a has two (<s>, b), b, c and </s> one each; 5 in all. D2 = 1. Left over: (1 + 3/2) / 5 = 1/2.
    unigram = {a: 1 / 5 + 1 / 8, b: 1 / 10 + 1 / 8, c: 1 / 10 + 1 / 8, eos: 1 / 10 + 1 / 8}
    assert sum(unigram.values()) == pytest.approx(1)
    # After a: b and c once each; discounted 1/4 each, 1/2 left over. After b: a once; 1/2, 1/2 left over.
    assert probability(model, (a,), b) == pytest.approx(1 / 4 + unigram[b] / 2)
    assert probability(model, (a,), a) == pytest.approx(unigram[a] / 2)
    assert probability(model, (a, b), a) == pytest.approx(1 / 2 + unigram[a] / 2)
    assert probability(model, (), a) == pytest.approx(1 / 2 + unigram[a] / 2)


def test_a_word_seen_after_one_history_only_gets_little_from_the_order_below():
    # Kneser and Ney's own point: "francisco" (2) is frequent, but only behind "san" (1); "tea" (3) is rarer, but behind many.
    documents = [[4, 1, 2]] * 10 + [[word, 3] for word in (5, 6, 7, 8)]
    model = KneserNey(count(stream(documents), 10, 2), 10)
    assert probability(model, (9,), 3) > probability(model, (9,), 2)


def test_discounts_are_chen_and_goodman_s():
    counts = np.repeat([1, 2, 3, 4, 9], [10, 5, 3, 2, 4])
    # Y = 10 / (10 + 2 * 5) = 1/2
    assert discounts(counts) == pytest.approx((1 - 2 * 0.5 * 5 / 10, 2 - 3 * 0.5 * 3 / 5, 3 - 4 * 0.5 * 2 / 3))
    assert discounts(np.array([1, 1, 3])) == FALLBACK_DISCOUNTS


def test_n_grams_do_not_cross_documents():
    levels = count(stream([[1, 2], [3, 4]]), 5, 3)
    pairs = {divmod(int(key), 5) for key in levels[1].keys}
    assert pairs == {(EOS, 1), (1, 2), (2, EOS), (EOS, 3), (3, 4), (4, EOS)}
    assert [int(level.counts.sum()) for level in levels] == [6, 6, 4]


def test_unigram_is_add_one_over_the_vocabulary():
    documents = [[1, 1, 2], [3]]
    expected = Counter([1, 1, 2, 3, EOS, EOS])
    model = Unigram(count(stream(documents), 8, 1)[0].counts, 8)
    for word in range(8):
        assert probability(model, (), word) == pytest.approx((expected[word] + 1) / (6 + 8))


@pytest.fixture
def store(tmp_path, byte_tokenizer):
    generator = np.random.default_rng(0)
    folder = tmp_path / "tokens"
    tokenizer = byte_tokenizer(64)
    eos = tokenizer.token_to_id("<|endoftext|>")

    def documents(number, sides):
        # The next token is one of two, by the one before it: an n-gram model can learn it.
        found = []
        for _ in range(number):
            ids = [int(generator.integers(60))]
            while len(ids) < generator.integers(20, 60):
                ids.append((ids[-1] * 7 + int(generator.integers(sides))) % 60)
            found.append(ids)
        return found

    streams = {name: {"train": documents(80, sides), "validation": documents(9, sides)} for name, sides in (("easy", 2), ("hard", 20))}
    store = write_store(folder, streams, vocab_size=64, eos=eos, sequence_length=16)
    tokenizer.save(str(folder / "tokenizer.json"))
    return store


def test_baselines_of_a_store(store, tmp_path):
    result = score_baselines(store.folder, EvaluateConfig(max_tokens=4000), tmp_path / "eval" / "baselines.json")
    unigram, bigram, five = result["baselines"]
    assert [b["name"] for b in result["baselines"]] == ["unigram", "bigram", "5-gram"]
    assert bigram["bits_per_byte"] < unigram["bits_per_byte"] - 1
    assert result["training_tokens"] == sum(store.num_tokens(source, "train") for source in store.sources)
    # One byte a token, and the end of text has none.
    validation = sum(store.num_tokens(source, "validation") for source in store.sources)
    assert result["scored_tokens"] == validation - 18
    assert result["bytes"] == validation - 36
    for baseline in (unigram, bigram, five):
        assert baseline["bits_per_byte"] * math.log(2) * result["bytes"] == pytest.approx(
            baseline["nats_per_token"] * result["scored_tokens"]
        )
        by_source = {row["source"]: row["value"] for row in baseline["metrics"] if row["metric"] == "bits_per_byte"}
        assert set(by_source) == {"all", "easy", "hard"}
    assert by_source["easy"] < by_source["hard"]


def test_a_store_without_validation_text_is_refused(tmp_path, byte_tokenizer):
    tokenizer = byte_tokenizer(8)
    write_store(
        tmp_path / "tokens", {"a": {"train": [[1, 2, 3]]}}, vocab_size=8, eos=tokenizer.token_to_id("<|endoftext|>"), sequence_length=4
    )
    tokenizer.save(str(tmp_path / "tokens" / "tokenizer.json"))
    with pytest.raises(ValueError, match="no validation document"):
        score_baselines(tmp_path / "tokens", EvaluateConfig(max_tokens=100), tmp_path / "baselines.json")
    assert not (tmp_path / "baselines.json").exists()
