from headrace.report import gather, summary_table


def test_summary_of_a_whole_run(folder):
    assert summary_table(gather(folder.whole())) == [
        ("documents in", "102"),
        ("kept", "80 (78.4 %)"),
        ("removed: filters, too_short", "15"),
        ("removed: filters, symbols", "5"),
        ("removed: ingest, no_json", "2"),
        ("tokens", "6,000 training, 600 validation"),
        ("trained", "20 steps, 2,000 tokens"),
        ("first validation loss", "5.000 nats/token (step 10)"),
        ("last validation loss", "3.000 nats/token (step 20)"),
        ("bits per byte", "1.500 ± 0.010 (step 20)"),
        ("  unigram baseline", "3.000 (add-one)"),
        ("  bigram baseline", "2.000 (Kneser-Ney)"),
        ("  5-gram baseline", "1.000 (Kneser-Ney)"),
        ("time", "23 s"),
    ]


def test_summary_says_what_is_not_there_yet(folder):
    assert summary_table(gather(folder.path)) == [("documents", "none yet"), ("trained", "not yet")]
    folder.data()
    folder.trained()
    rows = dict(summary_table(gather(folder.path)))
    assert rows["validation"] == "no checkpoint scored yet"


def test_models_from_outside_follow_the_baselines(folder):
    folder.whole()
    folder.external("published", 1.75, "dddd")
    rows = summary_table(gather(folder.path))
    assert rows[-3:-1] == [("  5-gram baseline", "1.000 (Kneser-Ney)"), ("  published", "1.750 ± 0.010 (from outside)")]


def test_many_reasons_are_added_up(folder):
    folder.stage("ingest", "aaaa", {"u0": ("books", 100, {f"reason_{n}": n + 1 for n in range(13)})})
    rows = dict(summary_table(gather(folder.path)))
    assert rows["removed: ingest, reason_12"] == "13"
    assert rows["removed: 1 other reasons"] == "1"


def verdict(folder):
    found = gather(folder.path)["verdict"]
    return found["state"], found["text"]


def test_the_verdict_follows_the_run(folder):
    folder.stage("ingest", "aaaa", {"u0": ("books", 40, {})})
    assert verdict(folder) == ("data", "Data under way: ingest is done, 40 of 40 documents kept so far.")
    folder.data()
    assert verdict(folder)[1].endswith("6.00 k training tokens. Not trained yet.")
    folder.trained(steps=5)
    assert verdict(folder) == ("training", "Training: step 5 of 20.")
    folder.trained(steps=20)
    folder.checkpoint(20)
    assert verdict(folder)[0] == "scoring"
    folder.checkpoint(20, 1.5)
    folder.baselines()
    state, text = verdict(folder)
    assert state == "complete"
    assert text.endswith(
        "1.500 bits per byte on held-out text at step 20: better than unigram (3.000), bigram (2.000); not better than 5-gram (1.000)."
    )


def test_a_run_that_ended_in_an_error_says_so_until_it_is_started_again(folder):
    folder.event(1, "data", "submitted", job="a")
    folder.event(2, "data", "failed", job="a", message="web.jsonl: 40 % of the records are broken")
    folder.event(3, "shutdown", "finished", seconds=0.5)
    assert verdict(folder) == ("failed", "Stopped in data: web.jsonl: 40 % of the records are broken")
    folder.event(9, "data", "submitted", job="a")
    assert verdict(folder)[0] == "empty"


def test_a_failed_score_does_not_fail_the_run(folder):
    folder.whole()
    folder.event(30, "evaluate", "failed", job="e", message="killed")
    assert verdict(folder)[0] == "complete"
    assert {"level": "warning", "stage": "evaluate", "text": "An attempt failed: killed"} in gather(folder.path)["alarms"]


def texts(folder):
    return [alarm["text"] for alarm in gather(folder.path)["alarms"]]


def test_a_good_run_raises_no_alarm(folder):
    folder.whole()
    assert texts(folder) == []


def test_alarms_of_the_data(folder):
    folder.stage("ingest", "aaaa", {"u0": ("books", 100, {"empty": 95}), "u1": ("web", 100, {"empty": 5})})
    assert texts(folder) == ["95.0 % of books was removed (95 documents)."]


def test_alarms_of_training(folder):
    folder.lines(
        "train/metrics.jsonl",
        [{"step": 1, "loss": float("nan"), "grad_norm": 1.0, "lr": 0.1, "tokens": 10, "tokens_per_s": 10.0, "data_wait_s": 0.2}],
    )
    assert texts(folder) == ["Loss or gradient norm not finite at step 1.", "20.0 % of the training time was spent waiting for data."]


def test_alarms_of_scores(folder):
    folder.data()
    folder.trained()
    folder.baselines()
    folder.checkpoint(5, status="failed")
    folder.checkpoint(10, 2.1)
    folder.checkpoint(20, 2.5)
    assert texts(folder) == [
        "step-00000005 has no score: it broke",
        "Bits per byte rose from 2.100 at step 10 to 2.500 at step 20.",
        "The model (2.500 bits per byte) is no better than the bigram (2.000).",
    ]
