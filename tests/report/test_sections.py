from xml.etree import ElementTree

from headrace.report import gather
from headrace.report.sections import corpus, table, time, training


def cells(text):
    return [[cell.text for cell in row] for row in ElementTree.fromstring(f"<r>{text}</r>").iter("tr")]


def test_a_table_sets_off_one_row_and_aligns_numbers():
    tree = ElementTree.fromstring(table(["name", "value"], [["a", "1"], ["b", "2"]], strong=1))
    assert [row.get("class") for row in tree.iter("tr")] == [None, None, "strong"]
    assert [cell.get("class") for cell in tree.iter("td")] == [None, "n", None, "n"]


def test_documents_by_source(folder):
    rows = cells(corpus(gather(folder.whole())))
    assert rows == [
        ["source", "documents", "after filters", "kept", "training tokens", "validation tokens", "bytes/token"],
        ["books", "40", "30", "75.0 %", "3,000", "300", "2.91"],
        ["web", "62", "50", "80.6 %", "3,000", "300", "2.91"],
    ]


def test_where_the_time_went(folder):
    rows = cells(time(gather(folder.whole())["time"]))
    assert rows[0] == ["part", "kind", "time", "start-up", "work", "share", "peak memory of a process"]
    assert rows[2] == ["data", "Ray job", "12 s", "5.0 s", "7.0 s", "52.2 %", "–"]
    assert rows[3] == ["\u2003ingest", "data stage", "4.0 s", "–", "–", "17.4 %", "5.00 MB"]


def test_training_says_how_long_it_took(folder):
    text = training(gather(folder.whole()))
    assert "20 optimizer steps over 2.00 k tokens in 40 s of stepping." in text
    assert text.count("<figure") == 4
