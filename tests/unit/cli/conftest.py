"""No test here may reach, or start, the daemon of the machine it runs on."""

import pytest


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAIS_HOST", "tcp://127.0.0.1:1")
