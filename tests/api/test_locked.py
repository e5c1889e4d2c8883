"""A locked manager says so everywhere and serves nothing else; the unlock key lets it go on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarmctl.core.api.route import ROUTES

from .running import RunningApi, running_api

if TYPE_CHECKING:
    from pathlib import Path

LOCKED = (
    "Swarm is encrypted and needs to be unlocked before it can be used. Please use "
    '"docker swarm unlock" to unlock it.'
)
LEAVE = (
    "Swarm is encrypted and locked. Please unlock it first or use `--force` to ignore this message."
)
WRONG = (401, "swarm could not be unlocked: invalid key provided")


async def init_locked(api: RunningApi) -> str:
    """Found a swarm that is locked from its start; return the unlock key."""
    address = f"127.0.0.1:{api.port}"
    body = {"ListenAddr": address, "AdvertiseAddr": address, "AutoLockManagers": True}
    assert (await api.request("POST", "/swarm/init", body)).status == 200
    return str((await api.get("/swarm/unlockkey"))["UnlockKey"])


async def test_a_locked_manager_serves_nothing_but_its_unlocking(tmp_path: Path) -> None:
    """Ping and info say locked, every cluster route gives Docker's sentence, a wrong key is
    refused, and the right one opens it."""
    async with running_api(tmp_path) as api:
        key = await init_locked(api)
        assert key.startswith("SWMKEY-1-")
        assert (await api.get("/swarm"))["Spec"]["EncryptionConfig"]["AutoLockManagers"]
    async with running_api(tmp_path) as api:
        assert (await api.request("GET", "/_ping")).headers["Swarm"] == "locked"
        swarm = (await api.get("/info"))["Swarm"]
        assert (swarm["LocalNodeState"], swarm["ControlAvailable"]) == ("locked", False)
        for route in ROUTES:
            if route.needs_manager:
                path = route.pattern.replace("{id}", "x")
                assert await api.refusal(route.method, path) == (503, LOCKED), path
        assert await api.refusal("POST", "/swarm/leave") == (503, LEAVE)
        forced = {"ForceNewCluster": True}
        assert await api.refusal("POST", "/swarm/init", forced) == (503, LOCKED)
        other = "SWMKEY-1-" + "k" * 43
        assert await api.refusal("POST", "/swarm/unlock", {"UnlockKey": other}) == WRONG
        damaged = await api.refusal("POST", "/swarm/unlock", {"UnlockKey": "nonsense"})
        assert damaged[0] == 401
        assert damaged[1].startswith("swarm could not be unlocked: this is no unlock key")
        assert (await api.request("GET", "/_ping")).headers["Swarm"] == "locked"

        opened = await api.request("POST", "/swarm/unlock", {"UnlockKey": key})
        assert (opened.status, opened.body) == (200, b"")
        assert (await api.request("GET", "/_ping")).headers["Swarm"] == "active/manager"
        assert (await api.get("/swarm/unlockkey"))["UnlockKey"] == key
        assert await api.refusal("POST", "/swarm/unlock", {"UnlockKey": key}) == (
            409,
            "swarm is not locked",
        )


async def test_the_unlock_key_comes_changes_and_goes_with_the_settings(tmp_path: Path) -> None:
    """Autolock on makes a key, a rotation another, other settings leave it, off removes it."""
    async with running_api(tmp_path) as api:
        await api.init()
        assert (await api.get("/swarm/unlockkey"))["UnlockKey"] == ""

        async def update(*, autolock: bool, query: str = "", **spec: object) -> tuple[int, str]:
            version = (await api.get("/swarm"))["Version"]["Index"]
            body = {"EncryptionConfig": {"AutoLockManagers": autolock}, **spec}
            path = f"/swarm/update?version={version}{query}"
            reply = await api.request("POST", path, body)
            key = (await api.get("/swarm/unlockkey"))["UnlockKey"]
            return reply.status, key

        rotate = "&rotateManagerUnlockKey=true"
        assert (await update(autolock=False, query=rotate))[0] == 400
        status, first = await update(autolock=True)
        assert status == 200
        assert first.startswith("SWMKEY-1-")
        assert await update(autolock=True, Labels={"a": "b"}) == (200, first)
        status, second = await update(autolock=True, query=rotate)
        assert status == 200
        assert second not in ("", first)
        assert await update(autolock=False) == (200, "")


async def test_two_rotations_of_one_version_give_one_key(tmp_path: Path) -> None:
    """A second rotation from the same reading is refused: it would retire a printed key."""
    async with running_api(tmp_path) as api:
        await init_locked(api)
        version = (await api.get("/swarm"))["Version"]["Index"]
        body = {"EncryptionConfig": {"AutoLockManagers": True}}
        path = f"/swarm/update?version={version}&rotateManagerUnlockKey=true"
        assert (await api.request("POST", path, body)).status == 200
        assert (await api.refusal("POST", path, body))[0] == 500
