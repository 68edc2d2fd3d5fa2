from sightline.core.condition_names import by_level


def test_levels_are_sorted_as_numbers_and_families_by_name() -> None:
    given = ["crop:12", "scale:0.9", "crop:4", "text", "clean", "shift:4", "shift:-16", "shift:-4"]
    expected = ["clean", "crop:4", "crop:12", "scale:0.9"]
    expected += ["shift:-16", "shift:-4", "shift:4", "text"]
    assert sorted(given, key=by_level) == expected
    assert sorted(["jpeg:3+rotate:30", "jpeg:3+rotate:8"], key=by_level)[0] == "jpeg:3+rotate:8"
    assert sorted(["asked:verify", "asked:p_true.2"], key=by_level)[0] == "asked:p_true.2"
