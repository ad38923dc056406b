import pytest

from deepmine_auto.terminal.pattern import FAINT, SHADES, beside, shaded


def test_a_larger_share_is_never_fainter():
    (line,) = shaded([[at / 100 for at in range(101)]])
    found = [SHADES.index(each) for each in line]
    assert found == sorted(found)
    assert set(found) == set(range(len(SHADES)))


def test_a_token_is_two_characters_wide_because_characters_are_tall():
    assert shaded([[1.0, 0.0]]) == ["██  "]


def test_what_is_hidden_is_blank_and_the_faintest_weight_is_not():
    assert shaded([[0.0, FAINT / 2, 2 * FAINT]]) == ["    ░░"]


def test_weights_below_zero_are_told_from_weights_above():
    assert shaded([[-1.0, 1.0, -0.01]]) == ["--██--"]


def test_pictures_stand_side_by_side_where_there_is_room():
    pictures = {"left": ["ab", "cd"], "right": ["ef", "gh"]}
    assert beside(pictures, 12).splitlines() == [
        "left    righ",
        "┌──┐    ┌──┐",
        "│ab│    │ef│",
        "│cd│    │gh│",
        "└──┘    └──┘",
    ]


@pytest.mark.parametrize("width", [11, None])
def test_pictures_stand_below_each_other_where_there_is_none(width):
    lines = beside({"left": ["ab"], "right": ["ef"]}, width).splitlines()
    assert lines == ["left", "┌──┐", "│ab│", "└──┘", "", "righ", "┌──┐", "│ef│", "└──┘"]


def test_a_lower_picture_ends_before_a_taller_one():
    lines = beside({"a": ["xxx"], "b": ["yyy", "zzz"]}, 80).splitlines()
    assert lines[2:] == ["│xxx│    │yyy│", "└───┘    │zzz│", "         └───┘"]
