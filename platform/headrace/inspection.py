"""Looking into a run's folder: what was rejected, what is no longer referred to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from headrace import storage
from headrace.artifact import FINGERPRINT, STAGES, Artifact, read_table
from headrace.config import ConfigError
from headrace.schema import REMOVED, rows_of

JUDGING = ("filters", "dedup", "decontaminate")
SHOWN = 1000  # characters of a text


def current(run: Path, stage: str) -> Artifact:
    """The run's artifact of a stage.

    Raises:
        ConfigError: no such stage, or it has not been made.
    """
    try:
        return Artifact.open(stage_folder(run, stage))
    except FileNotFoundError:
        raise ConfigError(f"{run}: its {stage} are not made yet; `headrace data {run / 'config.yaml'}` makes them.") from None


def stage_folder(run: Path, stage: str) -> Path:
    """Folder of the artifact, committed or not, that the run's configuration refers to.

    Raises:
        ConfigError: no such stage, or the run has not come to its data yet.
    """
    try:
        names = storage.read_json(run / "data" / "current.json")
        name = str(names[stage])
    except (FileNotFoundError, KeyError):
        raise ConfigError(f"{run}: has no stage {stage!r}; the stages are {', '.join(STAGES)}.") from None
    if not FINGERPRINT.fullmatch(name):
        raise ConfigError(
            f"{run / 'data' / 'current.json'}: names {name!r}, which is no artifact; the run's `headrace data` writes it anew."
        )
    return run / "data" / stage / name


def rejected(run: Path, stage: str, reason: str | None, limit: int) -> list[dict[str, Any]]:
    """The first `limit` things that a stage took out: source, id, reason, details, text (its beginning).

    A part cut out of a document that stays has the reason "<level>_cut", as in `sentence_cut`, and its text is that part.
    """
    if stage == "ingest":
        return _quarantined(run, reason, limit)
    verdicts = current(run, stage)
    if stage not in JUDGING:
        raise ConfigError(f"stage {stage!r} rejects nothing; look at ingest, {', '.join(JUDGING[:-1])} or {JUDGING[-1]}.")
    rows: list[dict[str, Any]] = []
    removed = verdicts.files("removed")
    for number, (documents, judged) in enumerate(zip(current(run, "ingest").files("documents"), verdicts.files("verdicts"), strict=True)):
        listed = read_table(removed[number]) if removed else REMOVED.empty_table()
        rows += _dropped(documents, read_table(judged), listed, reason, limit - len(rows))
        rows += _cut(documents, listed, reason, limit - len(rows))
        if len(rows) >= limit:
            break
    return rows


def _dropped(documents: Path, verdicts: pa.Table, removed: pa.Table, reason: str | None, limit: int) -> list[dict[str, Any]]:
    wanted = verdicts["reason"].is_valid() if reason is None else pc.fill_null(pc.equal(verdicts["reason"], reason), False)
    places = pc.indices_nonzero(wanted).slice(0, limit)
    if not len(places):
        return []
    whole = removed.filter(removed["start"].is_null())
    kept = dict(zip(whole["doc"].to_pylist(), whole["kept_id"].to_pylist(), strict=True))
    rows = []
    texts = read_table(documents, ["id", "source", "text"]).take(places)
    for text, verdict in zip(texts.to_pylist(), verdicts.take(places).to_pylist(), strict=True):
        doc, why = verdict.pop("doc"), verdict.pop("reason")
        measured = {name: value for name, value in verdict.items() if value is not None and name not in ("group", "content")}
        if kept.get(doc) is not None and "item" not in measured:  # the item of an evaluation set says it
            measured = {"repeats": kept[doc], **measured}
        details = ", ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in measured.items())
        rows.append({"source": text["source"], "id": text["id"], "reason": why, "details": details, "text": text["text"][:SHOWN]})
    return rows


def _cut(documents: Path, removed: pa.Table, reason: str | None, limit: int) -> list[dict[str, Any]]:
    cuts = removed.filter(removed["start"].is_valid())
    why = pc.binary_join_element_wise(cuts["level"], "cut", "_")
    cuts = cuts.append_column("reason", why)
    if reason is not None:
        cuts = cuts.filter(pc.equal(why, reason))
    cuts = cuts.slice(0, limit)
    if not len(cuts):
        return []
    texts = read_table(documents, ["source", "text"]).take(pa.array(rows_of(cuts["doc"].to_numpy())))
    rows = []
    for text, cut in zip(texts.to_pylist(), cuts.to_pylist(), strict=True):
        details = f"repeats={cut['kept_id']}, characters {cut['start']} to {cut['end']} of {len(text['text'])}"
        shown = text["text"][cut["start"] : cut["end"]][:SHOWN]
        rows.append({"source": text["source"], "id": cut["id"], "reason": cut["reason"], "details": details, "text": shown})
    return rows


def _quarantined(run: Path, reason: str | None, limit: int) -> list[dict[str, Any]]:
    """Rows of the quarantine, of a stage that gave up for having too many of them, too: they say what to mend."""
    folder = stage_folder(run, "ingest")
    rows: list[dict[str, Any]] = []
    for name in storage.names(folder / "quarantine"):
        if len(rows) >= limit:
            break
        (source,) = set(read_table(folder / "files" / name, ["source"])["source"].to_pylist())
        for row in read_table(folder / "quarantine" / name).to_pylist():
            if (reason is None or row["reason"] == reason) and len(rows) < limit:
                shown = (row["first_bytes"] or b"").decode("utf-8", "replace")
                place = f"{row['path']}#{row['offset']}"
                rows.append({"source": source, "id": place, "reason": row["reason"], "details": "", "text": shown})
    return rows


def unreferenced(run: Path) -> list[tuple[Path, int]]:
    """Artifact folders that RUN/data/current.json does not name, and what was left aside; each with its bytes."""
    try:
        current = storage.read_json(run / "data" / "current.json")
    except FileNotFoundError:
        return []
    found = [
        run / "data" / stage / name
        for stage in storage.names(run / "data")
        for name in storage.names(run / "data" / stage)
        # Nothing but what is called as artifacts are: `clean` deletes it, and a stage's folder may be a link to anywhere.
        if FINGERPRINT.fullmatch(name) and name != current.get(stage)
    ]
    # Checkpoints are left aside by a killed save; files of the run's own folder by a killed driver.
    found += [left for place in (run, run / "train" / "checkpoints") if place.is_dir() for left in sorted(place.glob(f"{storage.ASIDE}*"))]
    return [(folder, _size(folder)) for folder in found]


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else sum(storage.sizes(path).values())
