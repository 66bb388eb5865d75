"""No code comes from data: what could run some is called nowhere, and files made to run some are read, or refused, without."""

import ast
import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from headrace.checkpoint import Reader, newest_valid, verify
from headrace.checkpoint.write import Writer
from headrace.config import ConfigError, load_yaml, override
from headrace.dedup import index_rows
from headrace.ingest.documents import ingest_unit
from headrace.ingest.listing import plan_units
from headrace.ingest.read_parquet import read_parquet
from headrace.ingest.source import Source
from headrace.model import DecoderConfig
from headrace.tokens.tokenizer import read_tokenizer

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [path for folder in ("platform", "jobs", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]

MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
CALLS = {
    "load": {"torch", "np", "numpy"},
    "extractall": None,
    "unpack_archive": None,
    "read_pickle": None,
    "system": {"os"},
    "popen": {"os"},
}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}


BAD = """\
import pickle
import ray.cloudpickle
from ray import cloudpickle
from dill import loads
eval(x)
exec(x)
f(lambda: compile(x))
__import__(x)
importlib.import_module(name)
yaml.load(x)
yaml.load(x, Loader=yaml.FullLoader)
torch.load(x)
torch.load(x, weights_only=False)
np.load(x, allow_pickle=True)
np.load(x, allow_pickle=flag)
pd.read_pickle(x)
f(trust_remote_code=True)
subprocess.run(x, shell=True)
os.system(x)
tar.extractall(x)
shutil.unpack_archive(x)"""


def dangers(source):
    """What in a program could run code that comes with data, a line each."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (f"imports {alias.name}" for alias in node.names if alias.name.split(".")[-1] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            names = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
            yield from (f"imports {name}" for name in sorted(names & MODULES))
        elif isinstance(node, ast.Call):
            yield from _dangers_of_call(node)


def _dangers_of_call(node):
    given = {word.arg: word.value for word in node.keywords}
    if isinstance(node.func, ast.Name) and node.func.id in BUILTINS:
        yield f"calls {node.func.id}"
    if any(name in given and not _is(given[name], False) for name in ("shell", "trust_remote_code", "allow_pickle")):
        yield f"passes {ast.unparse(node)[:60]}"
    if not isinstance(node.func, ast.Attribute):
        return
    name, owner = node.func.attr, node.func.value.id if isinstance(node.func.value, ast.Name) else ""
    if owner == "yaml" and name in UNSAFE_YAML:
        yield f"calls yaml.{name}"
    if owner == "importlib" and name == "import_module" and not isinstance(node.args[0], ast.Constant):
        yield "imports by a name that is computed"
    if name in CALLS and (CALLS[name] is None or owner in CALLS[name]):
        safe = (owner == "torch" and _is(given.get("weights_only"), True)) or (owner in {"np", "numpy"} and name == "load")
        if not safe:
            yield f"calls {owner}.{name}"


def _is(node, value):
    return isinstance(node, ast.Constant) and node.value is value


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_runs_what_data_says(path):
    assert list(dangers(path.read_text())) == []


@pytest.mark.parametrize("program", BAD.splitlines())
def test_the_walk_finds_what_it_is_to_find(program):
    assert list(dangers(program))


@pytest.mark.parametrize("program", ["model.eval()", "re.compile(x)", "torch.compile(x)", "np.load(x)", "torch.load(x, weights_only=True)"])
def test_and_nothing_else(program):
    assert not list(dangers(program))


def test_a_pickle_in_a_checkpoint_is_a_breach(tmp_path, payload):
    (tmp_path / "tokenizer.json").write_text("{}")
    writer = Writer(tmp_path / "root", 1)
    writer.add("model", "embed.weight", torch.zeros(11, 8))
    config = DecoderConfig(layers=1, hidden=8, heads=2).sized(11, 4)
    about = {"model": config.model_dump(), "state": {"step": 1}, "config": {}, "layout": {}, "versions": {}}
    folder = writer.publish(about, tmp_path / "tokenizer.json")
    torch.save({"x": 1}, tmp_path / "archive.pt")
    for content in (payload, (tmp_path / "archive.pt").read_bytes()):
        (folder / "model.safetensors").write_bytes(content)
        # Whoever can write the weights can write a manifest that agrees with them.
        manifest = json.loads((folder / "manifest.json").read_text())
        entry = next(entry for entry in manifest["files"] if entry["path"] == "model.safetensors")
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        assert verify(folder)
        assert newest_valid(tmp_path / "root")[0] is None
        with pytest.raises(Exception, match=r"(?i)safetensor|header"), Reader(folder) as reader:
            reader.get("embed.weight")


def test_a_pickle_in_place_of_a_tokenizer_is_refused(tmp_path, payload):
    (tmp_path / "tokenizer.json").write_bytes(payload)
    with pytest.raises(ConfigError, match=r"tokens\.tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.json")


def test_yaml_makes_plain_values_only(tmp_path, payload):
    trace = tmp_path / "ran"
    (tmp_path / "run.yaml").write_text(f"out: !!python/object/apply:builtins.open ['{trace}', w]\n")
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_yaml(tmp_path / "run.yaml")
    tagged = f"!!python/object/apply:builtins.open ['{trace}', w]"
    assert override({}, [f"out={tagged}"]) == {"out": tagged}  # text, as whatever is no YAML


@pytest.mark.parametrize("form", ["npy", "npz"])
def test_an_array_of_objects_is_refused(tmp_path, traced, form):
    keys = tmp_path / f"keys.{form}"
    objects = np.array([traced], dtype=object)
    np.save(keys, objects, allow_pickle=True) if form == "npy" else np.savez(keys, words=objects)
    unit = {"id": "u0", "keys": keys, "files": {}, "kind": "x"}
    with pytest.raises((ValueError, KeyError)):
        index_rows.admit(unit, tmp_path)


EXTENSIONS = {
    "ray.data.arrow_pickled_object": b"",
    "ray.data.arrow_tensor_v2": b"\x80bad",
    "arrow.py_extension_type": None,
    "somebody.s": b"",
}


@pytest.mark.parametrize("name", EXTENSIONS)
@pytest.mark.parametrize("place", ["column", "struct", "list"])
def test_parquet_columns_of_foreign_types_are_left_out(tmp_path, payload, name, place):
    """Ray Data registers a type whose values are unpickled as soon as somebody looks at them."""
    import ray.data  # noqa: F401

    described = EXTENSIONS[name] if EXTENSIONS[name] is not None else payload
    inner = pa.field("extra", pa.large_binary(), metadata={"ARROW:extension:name": name, "ARROW:extension:metadata": described})
    field = {"column": inner, "struct": pa.field("extra", pa.struct([inner])), "list": pa.field("extra", pa.list_(inner))}[place]
    value = {"column": payload, "struct": {"extra": payload}, "list": [payload]}[place]
    plain = pa.field("url", pa.string())
    columns = [pa.array(["the text"]), pa.array([value], field.type), pa.array(["http://a"])]
    pq.write_table(pa.table(columns, schema=pa.schema([pa.field("text", pa.string()), field, plain])), tmp_path / "a.parquet")
    (item,) = read_parquet(str(tmp_path / "a.parquet"), "text")
    if name == "ray.data.arrow_tensor_v2":  # Ray's own reading of its description fails: the file is quarantined, the stage goes on
        assert item.reason == "corrupt_stream" and "footer" in item.first_bytes.decode()
    else:
        assert (item.text, item.url, item.meta) == ("the text", "http://a", None)


def test_pickles_among_the_input_are_quarantined(tmp_path, payload):
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for name in ("a.jsonl", "b.parquet", "c.jsonl.zst", "d.warc", "e.txt", "f.jsonl.gz"):
        (raw / name).write_bytes(payload)
    (raw / "g.jsonl").write_bytes(json.dumps({"text": "fine", "py/object": "os.system", "__reduce__": ["os.system", "x"]}).encode())
    (unit,) = plan_units([Source(name="mill", kind="prose", path=str(raw))])
    result = ingest_unit(unit, out)
    assert result.rows_out == 1 and sum(result.rejected.values()) == 6
