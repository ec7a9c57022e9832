"""No transform."""


def no_transform() -> None:
    """What ``transform=none`` builds: the weights stay as they are."""
