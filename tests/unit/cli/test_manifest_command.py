"""``cais manifest inspect``, which asks registries by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cais.cli import app
from cais.cli.commands import manifest
from cais.registry.options import RegistryOptions
from cais.testing.registry_shelf import PATH, Shelf
from cais.testing.scripted_registry import answering

if TYPE_CHECKING:
    from pathlib import Path

    from cais.testing.scripted_registry import Asked, Reply


@pytest.mark.parametrize("reply", [(404, {}, b"{}"), (200, {}, b"<html>")])
def test_what_a_mirror_does_not_have_the_registry_is_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reply: Reply,
) -> None:
    def poor(asked: Asked) -> Reply:
        return (200, {}, b"{}") if asked.target == "/v2/" else reply

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    rules = tmp_path / "registries.toml"
    monkeypatch.setattr(
        manifest, "RegistryOptions", lambda: RegistryOptions(rules, certificates=())
    )
    with answering(poor) as mirror, answering(Shelf().serve) as server:
        domain = server.origin.netloc
        rules.write_text(f'[[registry]]\nname = "{domain}"\nmirrors = ["{mirror.origin}"]\n')
        assert app.run(["manifest", "inspect", f"{domain}/{PATH}"]) == 0
    assert json.loads(capsys.readouterr().out) == Shelf().manifest()
    assert f"/v2/{PATH}/manifests/latest" in [target for _, target, _ in mirror.seen]
