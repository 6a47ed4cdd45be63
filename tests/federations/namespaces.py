"""Machines that share no address: network namespaces, joined by one cable, where this user may make them."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

IP_SECONDS = 30


class Namespace(NamedTuple):
    name: str
    address: str

    @property
    def prefix(self) -> tuple[str, ...]:
        """Before a command that is to run there."""
        return "ip", "netns", "exec", self.name

    def ip(self, *arguments: str) -> None:
        ip("-n", self.name, *arguments)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=IP_SECONDS)


@contextlib.contextmanager
def two_namespaces(parties: Sequence[str]) -> Iterator[tuple[Namespace, Namespace]]:
    """Each has a loopback interface of its own. Skips where namespaces are not to be had."""
    one, other = (Namespace(f"vfl-{os.getpid()}-{party}", f"198.51.100.{at}") for at, party in enumerate(parties, 1))
    made = []
    try:
        for each in (one, other):
            try:
                ip("netns", "add", each.name)
            except (OSError, subprocess.CalledProcessError):
                pytest.skip("this user may not make network namespaces")
            made.append(each)
        ip("link", "add", "vfl0", "netns", one.name, "type", "veth", "peer", "name", "vfl0", "netns", other.name)
        for each in (one, other):
            each.ip("address", "add", f"{each.address}/24", "dev", "vfl0")
            for device in ("lo", "vfl0"):
                each.ip("link", "set", device, "up")
        yield one, other
    finally:
        for each in made:
            ip("netns", "delete", each.name)
