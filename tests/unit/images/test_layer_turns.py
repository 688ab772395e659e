"""Layers are unpacked side by side and told of one after the other."""

from typing import Any, cast

from cais.images.layer_turns import LayerTurns


def test_the_lowest_is_told_first_and_nothing_is_lost() -> None:
    told: list[Any] = []
    low, middle, top, other = (cast("Any", [name]) for name in ("low", "middle", "top", "other"))
    turns = LayerTurns([low, middle, top], lambda layer, current: told.append((*layer, current)))
    turns.report(top, 1)
    turns.report(middle, 2)
    turns.report(other, 3)
    turns.report(low, 4)
    assert told == [("other", 3), ("low", 4)]
    turns.complete(low)
    turns.report(middle, 5)
    turns.complete(other)
    assert told[2:] == [("middle", 2), ("middle", 5)]
    turns.finish()
    assert told[4:] == [("top", 1)]
