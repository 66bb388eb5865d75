import unicodedata

import numpy as np
import pytest

from headrace.text.codepoints import ALPHABETIC, ALPHANUMERIC, SPACE, class_tables


@pytest.mark.parametrize("bit, method", [(SPACE, str.isspace), (ALPHABETIC, str.isalpha), (ALPHANUMERIC, str.isalnum)])
def test_the_table_answers_as_python_does_for_every_code_point(bit, method):
    pages, classes = class_tables()
    code_points = np.arange(0x110000)
    found = classes[pages[code_points >> 8], code_points & 255] & bit != 0
    assert [chr(c) for c in code_points if method(chr(c)) != found[c]] == []


def test_letters_are_the_unicode_categories_l():
    pages, classes = class_tables()
    for character in "aÉßжשع中あกǅª‿²½Ⅷ٣ -\u00a0\u3000\ufeff":
        code_point = ord(character)
        kind = classes[pages[code_point >> 8], code_point & 255]
        assert bool(kind & ALPHABETIC) == unicodedata.category(character).startswith("L"), character
        assert bool(kind & SPACE) == (not character.strip()), character


def test_tables_are_small():
    pages, classes = class_tables()
    assert pages.dtype == classes.dtype == np.uint8
    assert pages.nbytes + classes.nbytes < 64 << 10
