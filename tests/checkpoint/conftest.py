from pathlib import Path

import pytest


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text('{"it": "is small"}')
    return path
