"""A27: the files the engine brings go over links of an image inside the root only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from host_sentinel import attack, outcome

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.bundles import Bundle


@pytest.mark.parametrize("name", ["hosts", "resolv.conf", "hostname"])
@pytest.mark.parametrize("kind", ["link", "up", "dangling", "magic", "fifo", "directory"])
def test_cve_2024_5154_files_the_engine_brings_go_over_links_inside_only(
    tmp_path: Path, sentinel: Path, name: str, kind: str
) -> None:
    def body(bundle: Bundle) -> None:
        ours = tmp_path / "ours"
        ours.write_text("ours\n")
        place = bundle.rootfs / "etc" / name
        if kind == "fifo":
            os.mkfifo(place)
        elif kind == "directory":
            place.mkdir()
        else:
            place.symlink_to(
                {
                    "link": f"{sentinel}/new",
                    "up": f"../../../../../../..{sentinel}/file",
                    "dangling": "/no/such/place",
                    "magic": "/proc/self/root/etc/other",
                }[kind]
            )
        bundle.config["mounts"].append(
            {"destination": f"/etc/{name}", "type": "bind", "source": str(ours)}
        )
        test = ("grep", "-qx", "ours", f"/etc/{name}")
        assert outcome(bundle, *test) == ("setup" if kind in ("magic", "directory") else 0)

    attack(tmp_path, sentinel, body)
