import dataclasses

import pytest
import torch

from headrace.evaluate.generate import continue_tokens, generate
from headrace.evaluate.load import load_checkpoint
from headrace.model.aux import decoder_aux


@pytest.fixture
def checkpoint(trained):
    return trained[1]


def test_equal_seeds_give_equal_text(checkpoint):
    texts = [generate(checkpoint, "!#%", 40, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_temperature_zero_takes_the_most_probable_token(checkpoint):
    loaded = load_checkpoint(checkpoint)
    ids = loaded.tokenizer.encode("!#%").ids
    expected = []
    with torch.no_grad():
        for _ in range(3):
            tokens = torch.tensor([ids + expected])
            expected.append(int(loaded.model(tokens, decoder_aux(tokens, loaded.eos))[0, -1].argmax()))
    assert loaded.eos not in expected
    assert continue_tokens(loaded, "!#%", 3, 0.0, None, seed=3) == expected
    assert continue_tokens(loaded, "!#%", 3, 1.0, 1, seed=4) == expected


def test_a_text_longer_than_the_window_goes_on_from_its_last_window(checkpoint):
    loaded = load_checkpoint(checkpoint)
    length = loaded.config.sequence_length
    text = "!#%&()*+" * length
    assert continue_tokens(loaded, text, 8, 0.0, None, 0) == continue_tokens(loaded, text[-length:], 8, 0.0, None, 0)


def test_it_stops_at_the_end_of_text(checkpoint):
    loaded = load_checkpoint(checkpoint)
    greedy = continue_tokens(loaded, "!", 6, 0.0, None, 0)
    ends = dataclasses.replace(loaded, eos=greedy[2])
    assert continue_tokens(ends, "!", 6, 0.0, None, 0) == greedy[: greedy.index(greedy[2])]


def test_an_empty_prompt_and_no_tokens(checkpoint):
    assert isinstance(generate(checkpoint, "", 5), str)
    assert generate(checkpoint, "!", 0) == ""


@pytest.mark.parametrize(("arguments", "message"), [({"temperature": -1.0}, "temperature"), ({"top_k": 0}, "top_k")])
def test_impossible_settings_are_refused(checkpoint, arguments, message):
    with pytest.raises(ValueError, match=message):
        generate(checkpoint, "!", 5, **arguments)
