"""Files of a run, on a local disk, on S3 or on Google Cloud Storage: published whole, so that a reader never sees half of one.

A run is a `Path` wherever it lies; that of an object store is the path of its mirror (`folder`). What is written and read by the functions
below is the run's truth, seen by every node; what is written to such a path in any other way stays on this machine.
"""

from headrace.storage.appended import append_line, flush, join, read_lines, rewrite_lines, store_tail
from headrace.storage.disk import ASIDE, as_json, is_full, scratch_folder, sync_folder
from headrace.storage.files import (
    breaches,
    create,
    drop_copies,
    file_entry,
    holding,
    local,
    names,
    note,
    present,
    publish_tree,
    read_all,
    read_bytes,
    read_json,
    remove,
    remove_tree,
    size,
    sizes,
    touched,
    upload,
    writable_folder,
    write_bytes,
    write_json,
)
from headrace.storage.mirror import attach, environment, folder, is_remote, machine, name, portable, resolved
from headrace.storage.object_store import StorageError

__all__ = [
    "ASIDE",
    "StorageError",
    "append_line",
    "as_json",
    "attach",
    "breaches",
    "create",
    "drop_copies",
    "environment",
    "file_entry",
    "flush",
    "folder",
    "holding",
    "is_full",
    "is_remote",
    "join",
    "local",
    "machine",
    "name",
    "names",
    "note",
    "portable",
    "present",
    "publish_tree",
    "read_all",
    "read_bytes",
    "read_json",
    "read_lines",
    "remove",
    "remove_tree",
    "resolved",
    "rewrite_lines",
    "scratch_folder",
    "size",
    "sizes",
    "store_tail",
    "sync_folder",
    "touched",
    "upload",
    "writable_folder",
    "write_bytes",
    "write_json",
]
