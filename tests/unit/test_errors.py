"""The failure classes of cais.errors."""

from cais import errors


def test_every_class_derives_from_the_base() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type)]
    assert all(issubclass(cls, errors.CaisError) for cls in classes)
    assert len(classes) == 14
