import json

import pytest

BEGIN = 1_700_000_000.0


class RunFolder:
    """Writes a run's folder part by part, as the stages would."""

    def __init__(self, path):
        self.path = path
        path.mkdir()
        self.events = []

    def json(self, name, value):
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(value))

    def lines(self, name, values):
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(json.dumps(value) + "\n" for value in values))

    def event(self, at, stage, event, **what):
        self.events.append({"time": BEGIN + at, "stage": stage, "event": event, **what})
        self.lines("events.jsonl", self.events)

    def stage(self, name, fingerprint, units):
        """units: {unit id: (source, rows_in, rejected)}"""
        records, rejected = [], {}
        for unit_id, (source, rows_in, reasons) in units.items():
            out = rows_in - sum(reasons.values())
            record = {"id": unit_id, "files": [], "rows_in": rows_in, "rows_out": out, "rejected": reasons, "counters": {}}
            records.append(record | ({"source": source} if name == "ingest" else {}))
            for reason, rows in reasons.items():
                rejected[reason] = rejected.get(reason, 0) + rows
        totals = {"rows_in": sum(r["rows_in"] for r in records), "rows_out": sum(r["rows_out"] for r in records), "rejected": rejected}
        manifest = {"stage": name, "fingerprint": fingerprint, "units": records, "files": [], "totals": totals}
        self.json(f"data/{name}/{fingerprint}/manifest.json", manifest)

    def data(self):
        self.stage("ingest", "aaaa", {"u0": ("books", 40, {}), "u1": ("web", 62, {"no_json": 2})})
        self.stage("filters", "bbbb", {"u0": ("books", 40, {"too_short": 10}), "u1": ("web", 60, {"too_short": 5, "symbols": 5})})
        self.stage("split", "cccc", {"u0": ("books", 30, {}), "u1": ("web", 50, {})})
        self.stage("tokens", "dddd", {"u0": ("books", 30, {}), "u1": ("web", 50, {})})
        part = {"documents": 30, "tokens": 3000, "bytes": 9000}
        store = {
            "vocab_size": 512,
            "sequence_length": 16,
            "sources": {name: {"train": part, "validation": {"documents": 3, "tokens": 300, "bytes": 600}} for name in ("books", "web")},
            "unit_sources": {"u0": "books", "u1": "web"},
        }
        self.json("data/tokens/dddd/store.json", store)
        (self.path / "config.yaml").write_text("out: x\ntrain:\n  steps: 20\n")

    def trained(self, steps=20):
        rows = [
            {"step": k, "loss": 6.0 / k, "grad_norm": 1.0, "lr": 0.001, "tokens": 100 * k, "tokens_per_s": 50.0, "data_wait_s": 0.001}
            for k in range(1, steps + 1)
        ]
        self.lines("train/metrics.jsonl", rows)

    def checkpoint(self, step, bits_per_byte=None, status=None):
        name = f"step-{step:08d}"
        manifest = {
            "files": [
                {"path": "model.safetensors", "bytes": 1000, "sha256": ""},
                {"path": "optimizer.safetensors", "bytes": 2000, "sha256": ""},
            ],
            "tensors": {
                "embed.weight": {"shape": [512, 8], "dtype": "float32", "file": "model.safetensors"},
                "exp_avg/embed.weight": {"shape": [512, 8], "dtype": "float32", "file": "optimizer.safetensors"},
            },
            "model": {"architecture": "decoder", "layers": 2, "hidden": 8, "vocab_size": 512, "sequence_length": 16},
            "layout": {"data": 2, "zero": 1, "precision": "fp32"},
            "versions": {"torch": "2"},
        }
        self.json(f"train/checkpoints/{name}/manifest.json", manifest)
        if status:
            self.json(
                f"eval/{name}/fast.json", {"suite": "fast", "checkpoint": name, "status": status, "reason": "it broke", "attempts": 4}
            )
        elif bits_per_byte is not None:
            result = {
                "suite": "fast",
                "checkpoint": name,
                "step": step,
                "metrics": self.metrics(bits_per_byte),
                "validation_loss": bits_per_byte * 2,
                "scored_tokens": 600,
                "bytes": 1200,
                "seconds": 1.5,
            }
            self.json(f"eval/{name}/fast.json", result)

    @staticmethod
    def metrics(value):
        return [
            {
                "metric": metric,
                "source": source,
                "value": value,
                "stderr": 0.01,
                "ci95": [value - 0.02, value + 0.02],
                "n_documents": 6,
                "unit": "",
            }
            for source in ("all", "books", "web")
            for metric in ("bits_per_byte", "token_perplexity", "next_token_accuracy")
        ]

    def baselines(self):
        models = [("unigram", 1, "add-one", 3.0), ("bigram", 2, "Kneser-Ney", 2.0), ("5-gram", 5, "Kneser-Ney", 1.0)]
        listed = [
            {
                "name": name,
                "order": order,
                "smoothing": smoothing,
                "bits_per_byte": bits,
                "nats_per_token": 2 * bits,
                "metrics": self.metrics(bits),
            }
            for name, order, smoothing, bits in models
        ]
        self.json("eval/baselines.json", {"baselines": listed, "definition": "What is scored.", "training_tokens": 6000, "seconds": 2.0})

    def external(self, name, bits_per_byte, fingerprint):
        result = {
            "name": name,
            "architecture": "LlamaForCausalLM",
            "parameters": 124_000_000,
            "tokens_fingerprint": fingerprint,
            "bytes": 1200,
            "metrics": self.metrics(bits_per_byte),
            "definition": "What is scored, of models from outside too.",
        }
        self.json(f"eval/external/{name}.json", result)

    def whole(self):
        self.data()
        self.trained()
        self.checkpoint(10, 2.5)
        self.checkpoint(20, 1.5)
        self.baselines()
        self.event(10, "cluster", "finished", seconds=10.0)
        self.event(11, "data", "submitted", job="data-a1")
        self.event(21, "ingest", "finished", seconds=4.0, peak_rss_bytes=5_000_000)
        self.event(22, "filters", "finished", seconds=1.0, peak_rss_bytes=7_000_000)
        self.event(23, "data", "job finished", job="data-a1")
        self.lines("control/jobs.jsonl", [{"job": "data-a1", "submitted": BEGIN + 11, "entered": BEGIN + 16}])
        return self.path


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path / "trial")
