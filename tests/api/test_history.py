"""The specs a service had: ``GET /services/{id}/history``, and going back to one of them."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from .running import RunningApi, running_api, service_body

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

AUTH = base64.urlsafe_b64encode(b'{"username":"u","password":"hunter2"}').decode()


async def _update(api: RunningApi, image: str = "", query: str = "", **more: Any) -> Any:
    shown = await api.get("/services/web")
    spec = {**shown["Spec"], **more.pop("spec", {})}
    if image:
        spec["TaskTemplate"]["ContainerSpec"]["Image"] = image
    path = f"/services/web/update?version={shown['Version']['Index']}{query}"
    return await api.request("POST", path, spec, **more)


async def test_every_spec_is_listed_newest_first(tmp_path: Path) -> None:
    """Each has its number, its time, its maker and what changed; the present one is marked."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=1)
        assert (await _update(api, "nginx:2")).status == 200
        scaled = {"Mode": {"Replicated": {"Replicas": 2}}}
        assert (await _update(api, spec=scaled)).status == 200
        history = await api.get("/services/web/history")
        assert [one["Number"] for one in history] == [3, 2, 1]
        assert [one.get("Current", False) for one in history] == [True, False, False]
        assert history[0]["Changes"] == ["replicas 1 -> 2"]
        assert history[1]["Changes"][0].endswith("-> nginx:2")
        assert history[2]["Changes"] == []
        assert [one["How"] for one in history] == ["updated", "updated", "created"]
        assert history[0]["Spec"] == (await api.get("/services/web"))["Spec"]
        times = [one["CreatedAt"] for one in history]
        assert times == sorted(times, reverse=True)


async def test_the_same_spec_again_is_no_new_version(tmp_path: Path) -> None:
    """An update that changes nothing leaves the history as it is."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=1)
        assert (await _update(api)).status == 200
        assert len(await api.get("/services/web/history")) == 1


async def test_any_kept_version_can_be_gone_back_to(tmp_path: Path) -> None:
    """``rollback=N`` gives that spec, the present one becomes the previous, and it is noted."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=1)
        for tag in range(2, 5):
            assert (await _update(api, f"nginx:{tag}")).status == 200
        assert (await _update(api, query="&rollback=2")).status == 200
        shown = await api.get("/services/web")
        assert shown["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "nginx:2"
        assert shown["PreviousSpec"]["TaskTemplate"]["ContainerSpec"]["Image"] == "nginx:4"
        assert shown["UpdateStatus"]["State"].startswith("rollback_")
        newest = (await api.get("/services/web/history"))[0]
        assert (newest["Number"], newest["How"]) == (5, "rolled back to 2")


async def test_what_cannot_be_gone_back_to_is_named(tmp_path: Path) -> None:
    """An unknown version gives those that are kept; the present one needs no going back."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=1)
        assert (await _update(api, "nginx:2")).status == 200
        missing = await _update(api, query="&rollback=9")
        text = "service web has no revision 9 to go back to (kept: 1)"
        assert (missing.status, missing.json["message"]) == (404, text)
        same = await _update(api, query="&rollback=2")
        assert same.status == 400
        assert same.json["message"].endswith("service web is at revision 2 already")
        odd = await _update(api, query="&rollback=-1")
        assert odd.json["message"] == "unrecognized rollback option -1"


async def test_ten_versions_are_kept(tmp_path: Path) -> None:
    """Beside the present spec; older ones are gone for good."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.create("web", replicas=0)
        for tag in range(2, 15):
            assert (await _update(api, f"nginx:{tag}")).status == 200
        numbers = [one["Number"] for one in await api.get("/services/web/history")]
        assert numbers == list(range(14, 3, -1))


async def test_credentials_go_with_their_spec_and_are_never_shown(tmp_path: Path) -> None:
    """Going back brings back the pull credentials of then; no answer holds any."""
    async with running_api(tmp_path) as api:
        await api.init()
        created = await api.request(
            "POST", "/services/create", service_body("web"), headers={"X-Registry-Auth": AUTH}
        )
        assert created.status == 201
        other = AUTH[::-1]
        changed = await _update(api, "nginx:2", headers={"X-Registry-Auth": other})
        assert changed.status == 200
        reply = await api.request("GET", "/services/web/history")
        assert AUTH.encode() not in reply.body
        assert other.encode() not in reply.body
        assert (await _update(api, query="&rollback=1")).status == 200
        (row,) = api.manager.view.services()
        assert row.private.registry_auth == AUTH
        assert row.private.previous_registry_auth == other
