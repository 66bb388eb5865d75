import re
from xml.etree import ElementTree

from headrace.report import beside_newest, gather
from headrace.report.scoreboard import scores


def tables(report):
    tree = ElementTree.fromstring(scores(report))
    return [[[cell.text for cell in row] for row in found.iter("tr")] for found in tree.iter("table")]


def test_every_checkpoint_and_the_newest_by_source(folder):
    folder.whole()
    folder.checkpoint(15, status="failed")
    checkpoints, sources = tables(gather(folder.path))
    assert [row[:3] for row in checkpoints[1:]] == [
        ["10", "5.0000", "2.5000 ± 0.0100"],
        ["15", "failed", "–"],
        ["20", "3.0000", "1.5000 ± 0.0100"],
    ]
    assert [row[0] for row in sources[1:]] == ["books", "web", "all"]
    assert sources[1][5:] == ["3.000", "2.000", "1.000"]


def test_the_best_checkpoint_is_set_off(folder):
    folder.whole()
    folder.checkpoint(30, 1.9)
    strong = re.findall(r"<tr class=[\"']?strong[\"']?><td>(\d+)</td>", scores(gather(folder.path)))
    assert strong == ["20"]


def test_the_model_stands_among_the_baselines(folder):
    text = scores(gather(folder.whole()))
    names = re.findall(r'<span class="name">([^<]*)', text)
    assert names == ["unigram baseline", "bigram baseline", "this model", "5-gram baseline"]


def test_a_model_without_a_finite_score_is_still_listed(folder):
    folder.whole()
    folder.checkpoint(20, 1.5)
    result = {
        "suite": "fast",
        "metrics": [{"metric": "bits_per_byte", "source": "all", "value": None, "stderr": None}],
        "validation_loss": None,
    }
    folder.json("eval/step-00000020/fast.json", result)
    checkpoints, _ = tables(gather(folder.path))
    assert checkpoints[2][:3] == ["20", "–", "–"]


def test_a_model_from_outside_stands_among_them(folder):
    folder.whole()
    folder.external("published", 1.75, "dddd")
    text = scores(gather(folder.path))
    names = re.findall(r'<span class="name">([^<]*)', text)
    assert names == ["unigram baseline", "bigram baseline", "published", "this model", "5-gram baseline"]
    assert "What is scored, of models from outside too." in text
    _, sources = tables(gather(folder.path))
    assert [row[-1] for row in sources] == ["published, bits per byte", "1.750", "1.750", "1.750"]


def test_a_model_from_outside_before_any_checkpoint_is_scored(folder):
    folder.data()
    folder.external("published", 1.75, "dddd")
    assert re.findall(r'<span class="name">([^<]*)', scores(gather(folder.path))) == ["published"]


def test_a_model_beside_the_newest_checkpoint(folder):
    metrics = folder.metrics(1.75)
    head, *rows = beside_newest(metrics, "published", gather(folder.path))
    assert head == ["source", "documents", "published, bits per byte", "95 % interval"]
    assert rows[0] == ["books", "6", "1.750 ± 0.010", "1.730 to 1.770"]
    folder.whole()
    folder.checkpoint(30)
    head, *rows = beside_newest(metrics, "published", gather(folder.path))
    assert head[4:] == ["step-00000020, bits per byte"]
    assert [row[0] for row in rows] == ["books", "web", "all"]
    assert {row[4] for row in rows} == {"1.500 ± 0.010"}
