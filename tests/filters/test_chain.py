import json
from collections import Counter
from typing import get_args

import pyarrow as pa
import pytest
import zstandard
from pydantic import TypeAdapter, ValidationError

from headrace.filters import CodeQuality, FilterConfig, GopherQuality, GopherRepetition, SourceKind, annotate, default_chain

PROSE = "The article says that a reader should have patience with the words of an author, and be kind to them. " * 3
CODE = "def f(x):\n    # twice\n    return {'a': [x, x], 'b': (x,)}[0]\n\n\n" * 8


def docs(*texts):
    return pa.table({"doc": pa.array(range(7, 7 + len(texts)), pa.int64()), "text": pa.array(texts, pa.string())})


def reasons(chain, *texts):
    return annotate(docs(*texts), chain)["reason"].to_pylist()


def test_rows_stay_aligned_and_carry_the_chains_measures():
    annotated = annotate(docs(PROSE, "", "x y"), (CodeQuality(), GopherQuality(max_words=None)))
    assert annotated["doc"].to_pylist() == [7, 8, 9]
    assert set(annotated.column_names) == {"doc", "reason", *CodeQuality.measures, *GopherQuality.measures}
    assert annotated["words"].to_pylist() == [len(PROSE.split()), 0, 2]
    assert annotated.schema.field("reason").nullable and not annotated.schema.field("words").nullable


def test_the_first_filter_that_objects_gives_the_reason():
    text = "la " * 20
    assert reasons((GopherQuality(), GopherRepetition()), text) == ["gopher_quality:too_few_words"]
    assert reasons((GopherRepetition(), GopherQuality()), text) == ["gopher_repetition:top_2_gram_char_fraction"]


def test_an_empty_chain_keeps_everything():
    annotated = annotate(docs(PROSE, "", "la la"), ())
    assert annotated.to_pydict() == {"doc": [7, 8, 9], "reason": [None, None, None]}


def test_no_documents_give_no_verdicts():
    assert annotate(docs(), default_chain("web")).num_rows == 0


def test_a_filter_is_chosen_by_its_name_and_an_unknown_one_refused():
    adapter = TypeAdapter(tuple[FilterConfig, ...])
    chain = adapter.validate_python([{"name": "code_quality", "max_line_chars": 80}, {"name": "gopher_repetition"}])
    assert chain == (CodeQuality(max_line_chars=80), GopherRepetition())
    with pytest.raises(ValidationError, match="gopher_qualty"):
        adapter.validate_python([{"name": "gopher_qualty"}])


@pytest.mark.parametrize("kind", get_args(SourceKind))
def test_every_kind_of_source_has_a_chain_that_survives_json(kind):
    chain = default_chain(kind)
    adapter = TypeAdapter(tuple[FilterConfig, ...])
    assert adapter.validate_json(adapter.dump_json(chain)) == chain
    assert reasons(chain, "")[0] is not None  # an empty document is of no use to anybody


def test_code_and_mathematics_are_not_judged_by_the_rules_of_prose():
    proof = "Let $x_{1}$ and $y^{2}$ be in $\\mathcal{X}$, since the map\nof \\ref{lemma-one} is finite, flat and of degree 1."
    proof = f"\\begin{{proof}}\n{proof}\n\\end{{proof}}\n\n"
    latex = "".join(proof.replace("1", str(i)).replace("one", f"number-{i}-of-many") for i in range(20))
    assert reasons(default_chain("prose"), CODE, latex) == ["gopher_quality:too_few_stop_words", "gopher_repetition:dup_line_fraction"]
    assert reasons(default_chain("code"), CODE) == [None]
    assert reasons(default_chain("science"), latex) == [None]


def test_short_talk_and_foreign_languages_keep_their_place():
    talk = "user: does it work with the old version?\nassistant: yes, since 2.1."
    foreign = "Kansainvälisyysasiaintoimikunnan kokouksessa keskusteltiin yhteistyömahdollisuuksista."
    chinese = "飓风预计将在未来几天给整个地区带来暴雨。\n气象部门提醒居民注意安全。"
    assert reasons(default_chain("prose"), talk, foreign, chinese) == ["gopher_quality:too_few_words"] * 3
    assert reasons(default_chain("conversation"), talk) == [None]
    assert reasons(default_chain("multilingual"), foreign, chinese) == [None, None]


def test_noise_is_dropped_from_every_kind_of_source():
    noise = "[|&23% $>#>#&91^53] >]=8+|7] |7>}3+#4+>73 ~36^<%[<$82 =$04* 8[{25%# ^34|$<9>1802~<<} " * 12
    spam = "click here to buy now best price pills\n" * 60
    for kind in get_args(SourceKind):
        assert reasons(default_chain(kind), noise)[0] is not None, kind
        assert kind == "code" or reasons(default_chain(kind), spam)[0] is not None, kind


KINDS = {
    "web": "web",
    "conversation": "conversation",
    "books": "book",
    "multilingual": "multilingual",
    "scientific": "science",
    "code": "code",
}


def test_planted_junk_goes_and_ordinary_documents_stay(shared):
    corpus = shared / "data" / "corpus"
    junk = {row["id"] for row in read(corpus / "truth.jsonl.zst") if row["kind"] == "junk"}
    kept, seen, caught = Counter(), Counter(), set()
    for source, kind in KINDS.items():
        rows = [row for path in sorted(corpus.glob(f"{source}-*.jsonl.zst")) for row in read(path)]
        for row, reason in zip(rows, reasons(default_chain(kind), *(row["text"] for row in rows)), strict=True):
            if row["id"] in junk:
                caught |= {row["id"]} if reason else set()
            elif source != "web" or row["lang"] == "en":
                seen[source] += 1
                kept[source] += reason is None
    assert caught == junk
    assert {source: kept[source] / seen[source] > 0.95 for source in KINDS if source != "web"} == dict.fromkeys(set(KINDS) - {"web"}, True)
    assert kept["web"] / seen["web"] > 0.5  # whole pages with their navigation: a quarter repeats more lines than Gopher allows


def read(path):
    with zstandard.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
