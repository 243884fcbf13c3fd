"""What waits for somebody slow."""

from vuemantics_pipeline.progress.backlog import Backlog
from vuemantics_pipeline.progress.messages import Message


def message(key: str, text: str = "", *, is_summary: bool = False) -> Message:
    return Message("user:1", key, (text,), is_summary)


def drained(backlog: Backlog) -> list[str]:
    texts: list[str] = []
    while (taken := backlog.take()) is not None:
        texts += taken.texts
    return texts


def test_in_the_order_put() -> None:
    backlog = Backlog(10)
    for text in "abc":
        assert backlog.put(message(text, text))
    assert drained(backlog) == ["a", "b", "c"]


def test_the_newest_of_a_key_stands_where_the_first_stood() -> None:
    backlog = Backlog(10)
    for key, text in [("a", "a1"), ("b", "b1"), ("a", "a2"), ("a", "a3")]:
        backlog.put(message(key, text))
    assert len(backlog) == 2
    assert drained(backlog) == ["a3", "b1"]


def test_a_summary_overtakes_nothing() -> None:
    backlog = Backlog(10)
    for number in range(1, 5):
        backlog.put(message(f"file {number}", f"f{number}"))
        backlog.put(message("batch", f"b{number}", is_summary=True))
    assert drained(backlog) == ["f1", "b1", "f2", "f3", "f4", "b4"]


def test_whoever_is_slow_still_hears_of_the_batch() -> None:
    backlog = Backlog(10)
    heard: list[str] = []
    for number in range(1, 9):
        backlog.put(message(f"file {number}", f"f{number}"))
        backlog.put(message("batch", f"b{number}", is_summary=True))
        taken = backlog.take()
        assert taken is not None
        heard += taken.texts
    heard += drained(backlog)
    told = [int(text[1:]) for text in heard if text.startswith("b")]
    assert told == sorted(set(told))
    assert told[-1] == 8
    assert len(told) > 3
    for seen, text in enumerate(heard):
        if text.startswith("b"):
            files = {int(earlier[1:]) for earlier in heard[:seen] if earlier.startswith("f")}
            assert files >= set(range(1, int(text[1:]) + 1))


def test_a_full_one_takes_only_what_it_has_room_for() -> None:
    backlog = Backlog(2)
    assert backlog.put(message("a", "a1"))
    assert backlog.put(message("b", "b1"))
    assert not backlog.put(message("c", "c1"))
    assert backlog.put(message("a", "a2"))
    assert drained(backlog) == ["a2", "b1"]
