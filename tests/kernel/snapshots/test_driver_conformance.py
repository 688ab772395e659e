"""Every storage driver does what every snapshotter does."""

from pathlib import Path

from driver_kit import every_driver, on_driver, opened

from cais.testing.snapshotter_suite import SNAPSHOTTER_CHECKS


@every_driver
def test_conformance(tmp_path: Path, place: str) -> None:
    def body(top: Path) -> None:
        for check in SNAPSHOTTER_CHECKS:
            with opened(place, top / check.__name__) as snapshotter:
                check(snapshotter)

    on_driver(place, tmp_path, body)
