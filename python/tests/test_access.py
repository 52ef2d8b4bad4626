"""CURVE, roles and reach, with the real daemon: which keys get in, and what they may do."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Iterator

import pytest
import zmq

from cgse_procman import AsyncProcessManager, PermissionDenied, ProcessManager, Timeout

from conftest import Daemon, procmand, wait_for

pytestmark = pytest.mark.skipif(not zmq.has("curve"), reason="this libzmq has no CURVE")


class Site:
    """A daemon with an administrator and an operator."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        config = daemon.directory / "procmand.toml"
        text = config.read_text()
        text = text.replace("[events]", '[control.curve]\nsecret_key_file = "server.secret"\n' + self.client("boss", "admin") + self.client("op", "operate", ["device-*"]) + "[events]")
        config.write_text(text)
        self.server_key = self.keygen("server")
        daemon.start()
        self.local = ProcessManager(daemon.endpoint)
        wait_for(lambda: self.local.info(), "the daemon")
        self.endpoint = next(endpoint for endpoint in self.local.info().endpoints if endpoint.startswith("tcp:"))

    def keygen(self, name: str) -> str:
        """Makes a pair as a user does, and answers the public key."""
        made = subprocess.run([str(procmand()), "keygen", str(self.daemon.directory / name)], stdout=subprocess.PIPE, check=True)
        return made.stdout.decode().strip()

    def client(self, name: str, role: str, allow: "list[str]" = []) -> str:
        """A table of the configuration."""
        reach = f"allow = {allow}\n".replace("'", '"') if allow else ""
        return f'[[control.client]]\nname = "{name}"\npublic_key = "{self.keygen(name)}"\nrole = "{role}"\n{reach}'

    def keys(self, name: str) -> "dict[str, str]":
        """What a client of that name gives."""
        read = lambda ending: Path(self.daemon.directory / f"{name}.{ending}").read_text().strip()  # noqa: E731
        return {"server_key": self.server_key, "public_key": read("public"), "secret_key": read("secret")}


@pytest.fixture
def site() -> Iterator[Site]:
    daemon = Daemon(tcp=True)
    try:
        yield Site(daemon)
    finally:
        daemon.end()


def test_known_clients_do_what_they_may(site: Site) -> None:
    with ProcessManager(site.endpoint, **site.keys("boss")) as boss:
        boss.register("device-1", {"cmd": ["sleep", "1000"]})
        boss.register("other", {"cmd": ["sleep", "1000"]})
        assert boss.audit()[0].principal == "boss"
    with ProcessManager(site.endpoint, **site.keys("op")) as op:
        assert op.execute("device-1").pid > 0
        with pytest.raises(PermissionDenied, match="not within your reach"):
            op.execute("other")
        with pytest.raises(PermissionDenied, match="needs the role admin"):
            op.reload()
        assert op.quit("device-1").survivors == 0


def test_strangers_get_nothing(site: Site) -> None:
    site.keygen("stranger")
    stranger = ProcessManager(site.endpoint, connect_timeout=0.2, **site.keys("stranger"))
    with pytest.raises(Timeout):
        stranger.within(0.5).ping()
    with pytest.raises(Timeout):
        ProcessManager(site.endpoint, connect_timeout=0.2).within(0.5).ping()
    assert ProcessManager(site.endpoint, **site.keys("op")).ping().pong


def test_events_and_the_asynchronous_client_use_the_keys(site: Site) -> None:
    async def go() -> None:
        async with AsyncProcessManager(site.endpoint, **site.keys("boss")) as boss:
            await boss.register("web", {"cmd": ["sleep", "1000"]})
            await boss.execute("web", wait=True)
            seen = []
            async for event in boss.events(since=1):
                seen.append(event)
                if getattr(event, "to", None) == "running":
                    break
            assert seen
            await boss.quit("web")

    asyncio.run(asyncio.wait_for(go(), 30))
