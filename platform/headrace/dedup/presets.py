"""What published systems call a near-duplicate: shingle, bands and rows by the system's name.

A preset is how duplicates are found; which of them go is the rule's to say. (All of these systems remove transitively, by components.)
`verify` is what the system does: most take every pair that shares a band for duplicates; with `verify: true` the exact Jaccard
similarity of a pair must reach the threshold that the system states as its aim.

    preset       shingle         bands x rows   threshold   verified
    headrace     5 words         14 x 8         0.75        yes
    fineweb      5 words         14 x 8         0.75        no
    refinedweb   5 words         450 x 20       0.80        no
    slimpajama   13 characters   9 x 13         0.80        no
    gpt3         1 word          10 x 1         0.75        yes
    data-juicer  5 words         25 x 10        0.70        no
    nemo         24 characters   20 x 13        0.80        no

Where text and code disagree, this is what is meant:

- `refinedweb` (Penedo et al. 2023, arXiv:2306.01116, G.3.1) writes "20 buckets of 450 hashes", after Lee et al. 2022 (arXiv:2107.06499),
  whose formula 1 - (1 - s^b)^r has b = 20 for the hashes of a bucket and r = 450 for the buckets. Read literally, 20 bands of 450 rows
  find only copies (half of the pairs at a similarity of 0.993); 450 bands of 20 rows give the threshold of about 0.74 that both speak
  of. Their shingles are of GPT-2 tokens, and Lee et al. verify by edit similarity.
- `slimpajama` (Cerebras 2023) speaks of lower-cased 13-grams; its code passes the text, not its words, to `nltk.ngrams`, so they are of
  13 characters. 9 x 13 is what datasketch chooses for a threshold of 0.8 and 128 functions (`minhash.optimal_param`).
- `gpt3` (Brown et al. 2020, arXiv:2005.14165, appendix A): "Spark's MinHashLSH implementation with 10 hashes". No bands are published;
  Spark's hash tables are bands of one row, of which any may agree, and its join compares the word sets of the candidates exactly. The
  similarity that it asks for is not published either: ours stands here. A band of one row is a common word, so its buckets
  are as large as the corpus; a document meets at most `candidates.BUCKET_LEADERS` others in each.
- `data-juicer` 1.6 (document_minhash_deduplicator) sets no bands: 25 x 10 is its own choice for a threshold of 0.7 and 256 functions.
- `nemo` (NeMo Curator 1.4, FuzzyDeduplicationWorkflow) shingles the text as it stands; characters are lower-cased here, white space is one
  space. Its older releases used 5 characters and verified at 0.8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt

from headrace.config import Config
from headrace.dedup.minhash import candidate_probability
from headrace.text.characters import character_hashes
from headrace.text.shingles import WORDS_PER_SHINGLE, ngrams, word_hashes

PresetName = Literal["headrace", "fineweb", "refinedweb", "slimpajama", "gpt3", "data-juicer", "nemo"]
SIMILARITIES = (0.7, 0.75, 0.8, 0.85, 0.9)


class Shingle(Config):
    """What a document is a set of: n consecutive words, or characters."""

    unit: Literal["words", "characters"] = "words"
    size: PositiveInt = WORDS_PER_SHINGLE

    def of(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """Hashes of the shingles of each text, repeats included; a text of fewer than `size` words or characters has none.

        Returns:
            offsets int64 [N + 1] and shingles uint64 [S]: those of text i are shingles[offsets[i]:offsets[i + 1]].
        """
        return ngrams(*(word_hashes if self.unit == "words" else character_hashes)(texts), self.size)


def _preset(unit: str, size: int, bands: int, rows: int, threshold: float, verify: bool) -> dict[str, Any]:
    return {"shingle": {"unit": unit, "size": size}, "bands": bands, "rows": rows, "threshold": threshold, "verify": verify}


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "headrace": _preset("words", 5, 14, 8, 0.75, verify=True),
    "fineweb": _preset("words", 5, 14, 8, 0.75, verify=False),
    "refinedweb": _preset("words", 5, 450, 20, 0.8, verify=False),
    "slimpajama": _preset("characters", 13, 9, 13, 0.8, verify=False),
    "gpt3": _preset("words", 1, 10, 1, 0.75, verify=True),
    "data-juicer": _preset("words", 5, 25, 10, 0.7, verify=False),
    "nemo": _preset("characters", 24, 20, 13, 0.8, verify=False),
}


def with_preset(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that `values` name, over those of its preset; an unknown name is the caller's to refuse."""
    preset = PRESETS.get(str(values.get("preset", "headrace")), {})
    settings = {**preset, **values}
    if isinstance(values.get("shingle"), Mapping) and "shingle" in preset:
        settings["shingle"] = {**preset["shingle"], **values["shingle"]}
    return settings


def preset_table(chosen: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row a preset, and one more, `this run`, if the settings in use are none of them.

    Args:
        chosen: the settings in use, or null without a document level.

    Returns:
        {"preset", "shingle", "bands", "rows", "threshold", "verify", "threshold_estimate", "probability": {similarity: of becoming a
        candidate}, "chosen"}; the estimate (1/bands)^(1/rows) is about where the probability rises most steeply.
    """
    keys = PRESETS["headrace"].keys()
    rows = [(name, preset, False) for name, preset in PRESETS.items()]
    if chosen is not None:
        used = {key: chosen[key] for key in keys}
        names = [name for name, preset in PRESETS.items() if preset == used]
        name = chosen["preset"] if chosen["preset"] in names else "this run"
        rows = [(other, preset, other == name) for other, preset, _ in rows]
        rows += [] if name in PRESETS else [(name, used, True)]
    return [
        {
            "preset": name,
            **settings,
            "threshold_estimate": round((1 / settings["bands"]) ** (1 / settings["rows"]), 4),
            "probability": {f"{s:.2f}": round(candidate_probability(s, settings["bands"], settings["rows"]), 4) for s in SIMILARITIES},
            "chosen": used_here,
        }
        for name, settings, used_here in rows
    ]
