"""The labelled corpus, where it is on this machine: what was planted is found."""

from __future__ import annotations

import io
import json

import pytest
import zstandard

from headrace import pipeline
from headrace.artifact import Artifact, read_table
from headrace.config import validate
from headrace.run import RunConfig
from headrace.verdicts import unit_inputs

KINDS = {
    "web": "web",
    "conversation": "conversation",
    "books": "book",
    "multilingual": "multilingual",
    "scientific": "science",
    "code": "code",
}


@pytest.fixture(scope="module")
def reached(shared, tmp_path_factory):
    """Ids of the documents that reach the split, and those that filters or dedup rejected, with stage and reason."""
    corpus = shared / "data" / "corpus"
    sources = [{"name": name, "kind": kind, "path": f"{corpus}/{name}-*.jsonl.zst"} for name, kind in KINDS.items()]
    values = {"out": str(tmp_path_factory.mktemp("corpus")), "sources": sources, "train": {"layout": {"data": 1}}}
    config = validate(RunConfig, values, "test")
    plans = pipeline.stage_plans(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.encode, "encode", stop)  # the tokens themselves are not looked at here
        with pytest.raises(StoppedBeforeTokens):
            pipeline.curate(config, "local")
    folders = {name: config.folder / "data" / name / plans[name].fingerprint for name in ("ingest", "filters", "dedup")}
    artifacts = {name: Artifact.open(folder) for name, folder in folders.items()}
    kept, gone = set(), {}
    for unit in unit_inputs(artifacts["ingest"], [artifacts["filters"], artifacts["dedup"]]):
        ids = read_table(unit["documents"], ["id"])["id"].to_pylist()
        reasons = [read_table(path, ["reason"])["reason"].to_pylist() for path in unit["verdicts"]]
        for id_, filtered, repeated in zip(ids, *reasons, strict=True):
            if filtered or repeated:
                gone[id_] = ("filters", filtered) if filtered else ("dedup", repeated)
            else:
                kept.add(id_)
    text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader((corpus / "truth.jsonl.zst").open("rb")))
    return kept, gone, [json.loads(line) for line in text]


class StoppedBeforeTokens(Exception):
    pass


def stop(*_):
    raise StoppedBeforeTokens


def test_of_each_exact_pair_at_most_one_is_left(reached):
    kept, _, truth = reached
    pairs = [(row["id"], row["of"]) for row in truth if row["kind"] == "exact_duplicate"]
    assert len(pairs) == 150
    assert [pair for pair in pairs if kept.issuperset(pair)] == []


def test_of_near_pairs_that_reach_dedup_hardly_one_is_left_whole(reached):
    kept, gone, truth = reached
    pairs = [(row["id"], row["of"]) for row in truth if row["kind"] == "near_duplicate" and row["word5_jaccard"] >= 0.8]
    judged = [pair for pair in pairs if all(gone.get(id_, ("dedup",))[0] == "dedup" for id_ in pair)]
    assert len(judged) >= 40  # the others lost one to the filters before
    left = [pair for pair in judged if kept.issuperset(pair)]
    assert len(left) <= 0.05 * len(judged), left


def test_junk_is_rejected_and_each_source_keeps_most_of_what_is_not(reached):
    kept, gone, truth = reached
    junk = {row["id"] for row in truth if row["kind"] == "junk"}
    assert len(junk & kept) == 0
    assert len(kept) > 0.8 * len(kept | gone.keys())
