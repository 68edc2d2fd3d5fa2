"""Differences are named with both values, in few words."""

from sightline.core.differences import differences


def test_both_values_are_shown_and_equal_ones_are_not():
    assert differences({"a": 1, "b": [1], "c": "x"}, {"a": 1, "b": [2], "c": "x"}) == [
        "b [2] for [1]"
    ]
    assert differences({}, {}) == differences({"a": {"b": 1}}, {"a": {"b": 1}}) == []


def test_entries_within_entries_are_named_by_their_way():
    known = {"server": {"version": "1", "name": "s"}, "n": True}
    found = {"server": {"version": "2", "name": "s"}, "n": False}
    assert differences(known, found) == ["n False for True", "server version '2' for '1'"]
    assert differences({"server": {"version": "1"}}, {"server": "none"}) == [
        "server 'none' for {'version': '1'}"
    ]


def test_what_is_on_one_side_only_is_missing_on_the_other():
    assert differences({"a": 1}, {"b": 2}) == ["a missing for 1", "b 2 for missing"]


def test_what_may_differ_is_left_out():
    assert differences({"name": "x", "a": 1}, {"name": "y", "a": 2}, {"name"}) == ["a 2 for 1"]


def test_long_and_hostile_values_stay_short_and_inert():
    (line,) = differences({"v": "x" * 5000}, {"v": "\x1b[2J\n" * 1000})
    assert len(line) < 100
    assert line.isprintable()


def test_an_entry_within_another_may_differ_by_its_way_alone():
    known = {"can": {"seed": True, "n": True}, "seed": 1}
    found = {"can": {"seed": False, "n": False}, "seed": 2}
    assert differences(known, found, {"can seed"}) == ["can n False for True", "seed 2 for 1"]
    assert differences({"can": {"seed": 1}}, {"can": {"seed": 2}}, {"can seed"}) == []
