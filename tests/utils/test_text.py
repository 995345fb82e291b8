import pytest

from fashion_hydra.utils.text import id_list, one_line, shorten


@pytest.mark.parametrize(
    ("value", "longest", "text"),
    [("abcdef", 6, "abcdef"), ("abcdefg", 6, "abc..."), (1234567, 5, "12..."), ("", 6, "")],
)
def test_only_what_is_too_long_is_cut(value, longest, text):
    assert shorten(value, longest) == text


def test_a_text_of_lines_becomes_one():
    assert one_line(" a\n\tb  c\r\n") == "a b c"
    assert one_line("a\n" * 90, 9) == "a a a ..."
    assert one_line("x" * 5000) == "x" * 5000


def test_an_exception_without_text_is_shown_by_its_class():
    assert one_line(EOFError(), 80) == "EOFError"
    assert one_line(ValueError("no\nnumber")) == "no number"
    assert one_line("") == ""


def test_the_first_ids_are_listed():
    assert id_list([4, 0, 9]) == "4,0,9"
    assert id_list(range(6)) == "0,1,2,3,4,5"
    assert id_list(range(7)) == "0,1,2,3,4,5,..."
    assert id_list(()) == ""
