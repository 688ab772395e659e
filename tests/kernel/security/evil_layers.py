"""The kit of evil layers (SECURITY.md C1), and the tree they would like to reach.

``SENTINEL`` in a name or a link stands for the path of a directory that must not change.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cais.testing.raw_tar import Member, tar

if TYPE_CHECKING:
    from pathlib import Path

DIR, SYM, HARD, FIFO = b"5", b"2", b"1", b"6"
REFUSED, STAYS_INSIDE = True, False
UP = "../../../../../../../../.."


def chain_beyond_path_max() -> list[Member]:
    """The shape of CVE-2025-4517: short links that resolve to more than PATH_MAX, then up."""
    step, members, inside = "d" * 240, [], ""
    for letter in "abcdefghijklmnop":
        members += [Member(f"{inside}{step}", kind=DIR, mode=0o755)]
        members += [Member(f"{inside}{letter}", kind=SYM, link=step)]
        inside += f"{letter}/"
    members += [Member(f"{inside}{'l' * 254}", kind=SYM, link="../" * 16)]
    members += [Member("escape", kind=SYM, link=f"{inside}{'l' * 254}/{UP}SENTINEL")]
    return [*members, Member("escape/file", b"evil")]


ARCHIVES: dict[str, tuple[list[Member], bool]] = {
    "symlink-absolute": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("l/file", b"evil")], STAYS_INSIDE),
    "symlink-absolute-to-file": (
        [Member("l", kind=SYM, link="SENTINEL/file"), Member("l", b"evil")], STAYS_INSIDE),
    "symlink-up-and-out": (
        [Member("l", kind=SYM, link=f"{UP}SENTINEL"), Member("l/file", b"evil")], STAYS_INSIDE),
    "symlink-relative-sibling": (
        [Member("l", kind=SYM, link="../sentinel"), Member("l/file", b"evil")], STAYS_INSIDE),
    "symlink-multi-hop": (
        [Member("a", kind=SYM, link="b"), Member("b", kind=SYM, link="c"),
         Member("c", kind=SYM, link=f"{UP}SENTINEL"), Member("a/file", b"evil")], STAYS_INSIDE),
    "symlink-ending-in-slash": (
        [Member("l/", kind=SYM, link="SENTINEL/"), Member("l/file", b"evil")], STAYS_INSIDE),
    "symlink-empty-name": ([Member("", kind=SYM, link="SENTINEL")], REFUSED),
    "symlink-named-root": ([Member("/", kind=SYM, link="SENTINEL")], REFUSED),
    "symlink-named-dot": ([Member(".", kind=SYM, link="SENTINEL")], REFUSED),
    "symlink-empty-target": ([Member("l", kind=SYM, link="")], REFUSED),
    "symlink-parent-relative": (
        [Member("d/l", kind=SYM, link="../../sentinel"), Member("d/l/file", b"evil")],
        STAYS_INSIDE),
    "symlink-loop": (
        [Member("a", kind=SYM, link="b"), Member("b", kind=SYM, link="a"),
         Member("a/file", b"evil")], REFUSED),
    "symlink-to-itself": (
        [Member("a", kind=SYM, link="a"), Member("a/file", b"evil")], REFUSED),
    "symlink-to-proc-root": (
        [Member("l", kind=SYM, link="/proc/self/root/SENTINEL"), Member("l/file", b"evil")],
        STAYS_INSIDE),
    "symlink-to-proc-fd": (
        [Member("l", kind=SYM, link="/proc/self/fd"), Member("l/0", b"evil")], STAYS_INSIDE),
    "symlink-chmod-through-directory-entry": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("l", kind=DIR, mode=0o777, uid=7)],
        STAYS_INSIDE),
    "symlink-then-directory-below": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("l/new", kind=DIR)], STAYS_INSIDE),
    "symlink-then-fifo-below": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("l/new", kind=FIFO)], STAYS_INSIDE),
    "symlink-then-symlink-below": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("l/new", kind=SYM, link="x")],
        STAYS_INSIDE),
    "symlink-chain-beyond-path-max": (chain_beyond_path_max(), STAYS_INSIDE),
    "hardlink-relative": ([Member("h", kind=HARD, link="../sentinel/file")], REFUSED),
    "hardlink-absolute": ([Member("h", kind=HARD, link="SENTINEL/file")], REFUSED),
    "hardlink-up-and-out": ([Member("h", kind=HARD, link=f"{UP}SENTINEL/file")], REFUSED),
    "hardlink-long": ([Member("h", kind=HARD, link=f"{UP}/{'x/../' * 500}SENTINEL/file")], REFUSED),
    "hardlink-through-symlink": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("h", kind=HARD, link="l/file"),
         Member("h", b"evil")], REFUSED),
    "hardlink-to-symlink-before-its-target": (
        [Member("l", kind=SYM, link="SENTINEL/new"), Member("h", kind=HARD, link="l"),
         Member("h", b"evil")], STAYS_INSIDE),
    "hardlink-to-symlink-and-chmod": (
        [Member("l", kind=SYM, link="SENTINEL/file"),
         Member("h", kind=HARD, link="l", mode=0o777, uid=7)], STAYS_INSIDE),
    "hardlink-to-symlink-and-xattr": (
        [Member("l", kind=SYM, link="SENTINEL/file"),
         Member("h", kind=HARD, link="l", pax={"SCHILY.xattr.user.x": "evil"})], STAYS_INSIDE),
    "hardlink-to-directory": (
        [Member("d", kind=DIR), Member("h", kind=HARD, link="d")], REFUSED),
    "hardlink-to-root": ([Member("h", kind=HARD, link="/")], REFUSED),
    "hardlink-to-itself": ([Member("h", b"x"), Member("h", kind=HARD, link="h")], REFUSED),
    "hardlink-empty-target": ([Member("h", kind=HARD, link="")], REFUSED),
    "directory-replaces-symlink": (
        [Member("l", kind=SYM, link="SENTINEL"), Member("l", kind=DIR), Member("l/file", b"evil")],
        STAYS_INSIDE),
    "symlink-replaces-directory": (
        [Member("d", kind=DIR), Member("d/x", b"x"), Member("d", kind=SYM, link="SENTINEL"),
         Member("d/file", b"evil")], STAYS_INSIDE),
    "symlink-replaces-parent-directory": (
        [Member("a/b/c", b"x"), Member("a/b", kind=SYM, link="SENTINEL"),
         Member("a/b/file", b"evil")], STAYS_INSIDE),
    "file-directory-symlink-by-one-name": (
        [Member("n", b"x"), Member("n", kind=DIR), Member("n", kind=SYM, link="SENTINEL"),
         Member("n/file", b"evil"), Member("n", b"evil")], STAYS_INSIDE),
    "name-dot-dot": ([Member("..", kind=DIR, mode=0o777)], REFUSED),
    "name-dot": ([Member(".", kind=DIR, mode=0o711)], STAYS_INSIDE),
    "name-root": ([Member("/", kind=DIR, mode=0o711)], STAYS_INSIDE),
    "name-root-as-file": ([Member("/", b"evil")], REFUSED),
    "name-parent": ([Member("../sentinel/file", b"evil")], REFUSED),
    "name-parent-inside": ([Member("a/../../sentinel/file", b"evil")], REFUSED),
    "name-absolute": ([Member("SENTINEL/file", b"evil")], STAYS_INSIDE),
    "name-absolute-parent": ([Member("/../../../SENTINEL/file", b"evil")], STAYS_INSIDE),
    "name-long-parent": ([Member(f"{'../' * 200}SENTINEL/file", b"evil")], REFUSED),
    "name-nul": ([Member("x", b"evil", pax={"path": "a\0../sentinel/file"})], REFUSED),
    "link-nul": ([Member("x", kind=SYM, pax={"linkpath": "a\0b"})], REFUSED),
    "name-4097-bytes": ([Member("a/" * 2048 + "b", b"evil")], REFUSED),
    "name-component-256-bytes": ([Member("c" * 256, b"evil")], REFUSED),
    "name-invalid-utf-8": ([Member(b"\xff\xfe\x80", b"evil")], STAYS_INSIDE),
    "name-of-removal": ([Member(".remove-1-0", kind=DIR), Member(".remove-1-0", b"x")],
                        STAYS_INSIDE),
    "directory-below-file": ([Member("f", b"x"), Member("f/g", b"evil")], REFUSED),
    "kind-unknown": ([Member("x", kind=b"Z")], REFUSED),
    "pax-name-parent": ([Member("x", b"evil", pax={"path": "../sentinel/file"})], REFUSED),
    "gnu-sparse-name-parent": (
        [Member("x", b"evil", pax={"GNU.sparse.name": "../sentinel/file",
                                   "GNU.sparse.size": "4", "GNU.sparse.map": "0,4"})], REFUSED),
}  # fmt: skip


def make_precious(directory: Path) -> Path:
    """Make a tree that is compared before and after."""
    (directory / "sub").mkdir(parents=True)
    (directory / "file").write_text("precious")
    (directory / "sub/other").write_text("precious")
    (directory / "link").symlink_to("file")
    return directory


def archive_of(name: str, sentinel: Path) -> bytes:
    """Return one archive of the kit, aimed at a tree."""
    return tar(_rewritten(member, sentinel) for member in ARCHIVES[name][0])


def _rewritten(member: Member, sentinel: Path) -> Member:
    def text(value: str | bytes) -> str | bytes:
        path = os.fsencode(sentinel)
        return (
            value.replace(b"SENTINEL", path)
            if isinstance(value, bytes)
            else value.replace("SENTINEL", os.fspath(sentinel))
        )

    return Member(
        text(member.name), member.content, member.kind, text(member.link), member.mode, member.uid,
        member.gid, member.mtime, member.device, member.pax, member.size,
    )  # fmt: skip
