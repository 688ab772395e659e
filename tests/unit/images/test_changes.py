"""``--change``: the Dockerfile instructions an import understands."""

import pytest

from cais.images.changes import InvalidChangeError, apply_changes
from cais.spec.image import ContainerConfig, Healthcheck


def changed(*changes: str) -> ContainerConfig:
    return apply_changes(ContainerConfig(), changes)


def test_every_instruction() -> None:
    config = changed(
        'CMD ["a", "b c"]',
        "ENTRYPOINT exec $HOME/x",
        'ENV A=1 B=\'two words\' C="say \\"hi\\""',
        "ENV OLD the whole line",
        "EXPOSE 80 53/udp 8000-8002",
        'LABEL one=1 two="2 3"',
        "USER nobody:nogroup",
        "WORKDIR /srv",
        "WORKDIR app/../web",
        "VOLUME /a /b",
        'VOLUME ["/c d"]',
        "STOPSIGNAL SIGINT",
        "ONBUILD RUN x",
        "HEALTHCHECK --interval=1m30s --retries=3 CMD test -f /x",
    )
    assert config == ContainerConfig(
        cmd=["a", "b c"],
        entrypoint=["/bin/sh", "-c", "exec $HOME/x"],
        env=["A=1", "B=two words", 'C=say "hi"', "OLD=the whole line"],
        exposed_ports={
            name: {} for name in ["80/tcp", "53/udp", "8000/tcp", "8001/tcp", "8002/tcp"]
        },
        labels={"one": "1", "two": "2 3"},
        user="nobody:nogroup",
        working_dir="/srv/web",
        volumes={name: {} for name in ["/a", "/b", "/c d"]},
        stop_signal="SIGINT",
        on_build=["RUN x"],
        healthcheck=Healthcheck(
            test=["CMD-SHELL", "test -f /x"], interval=90_000_000_000, retries=3
        ),
    )


def test_variables_are_those_set_before() -> None:
    config = changed("ENV DIR=/srv", "ENV BOTH=${DIR}/x:$DIR:\\$DIR:$NONE", "WORKDIR $DIR/app")
    assert config.env == ["DIR=/srv", "BOTH=/srv/x:/srv:$DIR:"]
    assert config.working_dir == "/srv/app"


def test_the_last_one_counts_and_env_replaces() -> None:
    config = changed("CMD one", "cmd two", "ENV A=1 B=2", "ENV A=3")
    assert config.cmd == ["/bin/sh", "-c", "two"]
    assert config.env == ["A=3", "B=2"]
    assert changed("CMD []").cmd == []
    assert changed("CMD [broken").cmd == ["/bin/sh", "-c", "[broken"]
    assert changed("HEALTHCHECK NONE").healthcheck == Healthcheck(test=["NONE"])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ("RUN x", "RUN is not a valid change command"),
        ("FROM x", "FROM is not a valid change command"),
        ("nonsense", "nonsense is not a valid change command"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV x", "ENV must have two arguments"),
        ("ENV a=1 b", "Syntax error - can't find = in 'b'. Must be of the form: name=value"),
        ("EXPOSE x", "invalid containerPort: x"),
        ("EXPOSE 70000", "invalid containerPort: 70000"),
        ("EXPOSE 0", "invalid containerPort: 0"),
        ("EXPOSE 9-8", "invalid containerPort: 9-8"),
        ("ONBUILD ONBUILD X", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK x", 'Unknown type "x" in HEALTHCHECK (try CMD)'),
        ("HEALTHCHECK --nope=1 CMD x", "unknown flag: --nope=1"),
        ("HEALTHCHECK --interval=5 CMD x", 'time: invalid duration "5"'),
    ],
)
def test_what_is_refused(change: str, text: str) -> None:
    with pytest.raises(InvalidChangeError) as caught:
        changed(change)
    assert str(caught.value) == text
