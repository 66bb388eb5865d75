"""Raw files to documents: `listing` finds and cuts the input, one `read_*` a format, `documents` writes what a unit yields."""
