"""Stacks as py-spy writes them."""

import pytest

from pytest_mlpatterns.profiling.py_spy import RawFrame, RawStack, read_collapsed


def test_a_line_is_a_thread_its_frames_and_how_often_it_was_seen() -> None:
    text = "thread (17): MainThread;<module> (/srv/app.py:3);predict (/srv/a b.py:9) 42\n"
    frames = (RawFrame("<module>", "/srv/app.py", 3), RawFrame("predict", "/srv/a b.py", 9))
    assert read_collapsed(text) == {RawStack(17, "MainThread", frames): 42}


def test_newer_versions_write_qualified_names() -> None:
    (stack,) = read_collapsed("thread (1);Digits.predict.<locals>.<lambda> (/srv/model.py:9) 1")
    assert stack.frames == (RawFrame("<lambda>", "/srv/model.py", 9, "Digits.predict.<locals>.<lambda>"),)


def test_native_code_has_no_file_and_an_old_python_no_thread_id() -> None:
    (stack,) = read_collapsed("thread (0x7F00AA): Thread-1 (run);ns::sort<int> 3\n\n")
    assert stack == RawStack(0, "Thread-1 (run)", (RawFrame("ns::sort<int>", "", 0),))


def test_a_file_without_a_line() -> None:
    (stack,) = read_collapsed("thread (1);work (<string>) 1")
    assert stack.frames == (RawFrame("work", "<string>", 0),)


def test_the_same_stack_is_counted_once() -> None:
    assert list(read_collapsed("thread (1);f (a.py:1) 2\nthread (1);f (a.py:1) 3").values()) == [5]


@pytest.mark.parametrize("text", ["f (a.py:1) 2", "thread (1);f (a.py:1)", "thread (1);f (a.py:1) many"])
def test_what_was_cut_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"thread|int"):
        read_collapsed(text)
