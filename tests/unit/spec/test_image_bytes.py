"""Image documents of ours as bytes."""

from cais.spec.image import ContainerConfig, ImageConfig, RootFs, encode


def test_the_order_in_which_names_were_given_is_not_in_the_bytes() -> None:
    def encoded(names: str) -> bytes:
        labels = dict.fromkeys(names, "x")
        ports = {f"{ord(name)}/tcp": {} for name in names}
        container = ContainerConfig(labels=labels, exposed_ports=ports, cmd=["b", "a"])
        return encode(ImageConfig(rootfs=RootFs("layers", []), config=container))

    assert encoded("ab") == encoded("ba")
    assert b'"Cmd":["b","a"]' in encoded("ab")
