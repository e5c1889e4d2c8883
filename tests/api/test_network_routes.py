"""Networks over the API: made, shown, refused and removed in Docker's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from msgspec.structs import replace

from swarmctl.plugins.null_driver import NullDriver, NullKernel

from .running import RunningApi, running_api, service_body

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

INVALID = "rpc error: code = InvalidArgument desc = "
PRECONDITION = "rpc error: code = FailedPrecondition desc = "
EXISTS = "rpc error: code = AlreadyExists desc = "
UNIMPLEMENTED = "rpc error: code = Unimplemented desc = "
NOT_JOINED = (
    "tasks on here reach each other over the network only on the same node: no network driver "
    "works there"
)
WAIT_S = 30.0


async def make(api: RunningApi, name: str, **more: Any) -> str:
    """Create a network as docker does; return its id."""
    body = {"Name": name, "Driver": "overlay", "CheckDuplicate": True, "Scope": "", **more}
    reply = await api.request("POST", "/networks/create", body)
    assert reply.status == 201, reply
    return str(reply.json["Id"])


async def seen(api: RunningApi, path: str, condition: Callable[[Any], object]) -> Any:
    """Return what is found at a path once it is as it should be."""
    with trio.fail_after(WAIT_S):
        while True:
            found = await api.get(path)
            if condition(found):
                return found
            await trio.sleep(0.02)


def joins(network: str, **more: Any) -> dict[str, Any]:
    """Return the part of a service's spec that puts it on a network."""
    container = {"Image": "host", "Args": ["sleep", "60"]}
    return {"TaskTemplate": {"ContainerSpec": container, "Networks": [{"Target": network, **more}]}}


async def test_a_swarm_has_an_ingress_network(tmp_path: Path) -> None:
    """It is there from init, first of all subnets; the engine's own are found but not listed."""
    async with running_api(tmp_path) as api:
        await api.init()
        (ingress,) = await seen(api, "/networks", lambda found: found[0]["IPAM"]["Config"])
        assert {key: ingress[key] for key in ("Name", "Scope", "Driver", "Ingress")} == {
            "Name": "ingress",
            "Scope": "swarm",
            "Driver": "overlay",
            "Ingress": True,
        }
        assert ingress["IPAM"] == {
            "Driver": "default",
            "Options": None,
            "Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}],
        }
        vxlan = {"com.docker.network.driver.overlay.vxlanid_list": "4096"}
        assert (ingress["Options"], ingress["Containers"]) == (vxlan, None)
        host = await api.get("/networks/host?scope=swarm")
        assert (host["Driver"], host["Scope"]) == ("host", "swarm")
        assert await api.refusal("GET", "/networks/host?scope=local") == (
            404,
            "network host not found",
        )


async def test_a_network_is_made_shown_and_removed(tmp_path: Path) -> None:
    """Its answer warns of what is not done yet; its use is shown; its name is free afterwards."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.wait_ready()
        body = {"Name": "net", "Driver": "overlay", "Attachable": True, "Labels": {"a": "b"}}
        reply = await api.request("POST", "/networks/create", body)
        assert reply.status == 201
        assert reply.json["Warning"] == NOT_JOINED
        network_id = reply.json["Id"]
        shown = await seen(api, "/networks/net", lambda found: found["Status"]["IPAM"]["Subnets"])
        assert shown["Id"] == network_id
        assert shown["Status"]["IPAM"]["Subnets"] == {
            "10.0.1.0/24": {"IPsInUse": 1, "DynamicIPsAvailable": 253}
        }
        assert await api.refusal("POST", "/networks/create", body) == (
            409,
            "network with name net already exists",
        )
        for filters, count in (("label", 1), ("scope", 0)):
            query = f'/networks?filters={{"{filters}":["a=b"]}}'
            assert len(await api.get(query)) == count
        assert len(await api.get('/networks?filters={"name":["ne"]}')) == 1
        removed = await api.request("DELETE", f"/networks/{network_id[:10]}")
        assert (removed.status, removed.body) == (204, b"")
        assert await api.refusal("DELETE", "/networks/net") == (404, "network net not found")
        await make(api, "net")
        again = await seen(api, "/networks/net", lambda found: found["IPAM"]["Config"])
        assert again["IPAM"]["Config"][0]["Subnet"] == "10.0.2.0/24"


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (
            {"Driver": ""},
            (
                400,
                INVALID + "networks of driver bridge are an engine's own: create them on that "
                "engine; a network of the swarm has the driver overlay",
            ),
        ),
        (
            {"Driver": "weave"},
            (400, INVALID + "there is no network driver 'weave'; there are: overlay"),
        ),
        (
            {"Scope": "local"},
            (400, INVALID + "networks of driver overlay have the scope swarm, not local"),
        ),
        ({"Name": "host"}, (403, "operation is not permitted on predefined host network ")),
        ({"Name": ""}, (400, INVALID + "meta: name must be provided")),
        (
            {"Ingress": True},
            (409, EXISTS + "ingress network (ID) is already present"),
        ),
        (
            {"Ingress": True, "Attachable": True},
            (400, INVALID + "ingress network cannot be attachable"),
        ),
        (
            {"IPAM": {"Config": [{"Subnet": "10.5.0.0/24", "Gateway": "10.6.0.1"}]}},
            (
                400,
                INVALID
                + "ipam configuration: subnet 10.5.0.0/24 does not contain gateway 10.6.0.1",
            ),
        ),
        (
            {"IPAM": {"Config": [{"Subnet": "fd00::/64"}]}},
            (
                400,
                INVALID + "ipam configuration: subnet fd00::/64 is IPv6, which is not enabled "
                "(--ipv6)",
            ),
        ),
        (
            {"IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}, {"Subnet": "10.6.0.0/24"}]}},
            (
                501,
                UNIMPLEMENTED + "a network has one subnet of each address family; give it one that "
                "is large enough",
            ),
        ),
        (
            {"IPAM": {"Driver": "dhcp"}},
            (
                400,
                INVALID + "ipam driver 'dhcp' is not available; addresses are swarmctl's to give "
                "(driver default)",
            ),
        ),
        ({"EnableIPv4": False}, (400, INVALID + "IPv4 or IPv6 must be enabled")),
        (
            {"Options": {"encrypted": ""}},
            (
                501,
                UNIMPLEMENTED + "encrypted networks are not available in this release: their "
                "traffic would not be encrypted",
            ),
        ),
        (
            {"ConfigOnly": True},
            (
                501,
                UNIMPLEMENTED + "networks made from the configuration of another are not supported",
            ),
        ),
        (
            {"Options": {"com.docker.network.driver.overlay.vxlanid_list": "1,2"}},
            (
                400,
                INVALID
                + "option com.docker.network.driver.overlay.vxlanid_list=1,2: a network has "
                "one number, from 1 to 16777215",
            ),
        ),
    ],
)
async def test_networks_that_cannot_be(
    tmp_path: Path, body: dict[str, Any], answer: tuple[int, str]
) -> None:
    """Each is refused with what is wrong and what would be right."""
    async with running_api(tmp_path) as api:
        await api.init()
        (ingress,) = await api.get("/networks")
        full = {"Name": "net", "Driver": "overlay", **body}
        status, text = answer
        expected = (status, text.replace("ID", ingress["Id"]) if "(ID)" in text else text)
        assert await api.refusal("POST", "/networks/create", full) == expected
        assert len(await api.get("/networks")) == 1


async def test_a_node_that_is_no_manager_makes_none(tmp_path: Path) -> None:
    """A network of the swarm is refused as every change is; lists are empty, prunes do nothing."""
    async with running_api(tmp_path) as api:
        body = {"Name": "net", "Driver": "overlay"}
        status, text = await api.refusal("POST", "/networks/create", body)
        assert status == 503
        assert text.startswith("This node is not a swarm manager.")
        assert await api.get("/networks") == []
        pruned = await api.request("POST", "/networks/prune")
        assert (pruned.status, pruned.json) == (200, {"NetworksDeleted": None})


async def test_an_overlapping_network_is_made_and_warned_of(tmp_path: Path) -> None:
    """As in Docker it gets nothing before the other one goes; the answer and inspect say so."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.wait_ready()
        config = {"IPAM": {"Config": [{"Subnet": "10.5.0.0/24"}]}}
        await make(api, "first", **config)
        await seen(api, "/networks/first", lambda found: found["Status"]["IPAM"]["Subnets"])
        body = {"Name": "second", "Driver": "overlay", **config}
        reply = await api.request("POST", "/networks/create", body)
        assert reply.json["Warning"] == (
            "subnet 10.5.0.0/24 overlaps with 10.5.0.0/24 of network first, so the network gets no "
            f"addresses before that one is gone; {NOT_JOINED}"
        )
        shown = await seen(api, "/networks/second", lambda found: found["Status"].get("Err"))
        assert shown["Status"]["Err"].startswith("pool overlaps with other one on this address")
        assert (await api.request("DELETE", "/networks/first")).status == 204
        await seen(api, "/networks/second", lambda found: found["Status"]["IPAM"]["Subnets"])


async def test_networks_in_use_stay(tmp_path: Path) -> None:
    """A service's network is refused; once the service is removed it goes at once, tasks or not."""
    async with running_api(tmp_path) as api:
        await api.init()
        network_id = await make(api, "net")
        service_id = await api.create("web", **joins("net"))
        await seen(
            api,
            "/tasks",
            lambda tasks: [one["Status"]["State"] for one in tasks] == ["running"],
        )
        (task,) = await api.get("/tasks")
        (attachment,) = task["NetworksAttachments"]
        assert attachment["Network"]["ID"] == network_id
        assert attachment["Addresses"] == ["10.0.1.3/24"]
        service = await api.get(f"/services/{service_id}")
        vip = {"NetworkID": network_id, "Addr": "10.0.1.2/24"}
        assert service["Endpoint"]["VirtualIPs"] == [vip]
        shown = await api.get("/networks/net")
        assert shown["Status"]["IPAM"]["Subnets"]["10.0.1.0/24"]["IPsInUse"] == 3
        assert "Services" not in shown
        (node,) = await api.get("/nodes")
        member = {
            "Name": f"web.1.{task['ID']}",
            "EndpointID": "",
            "EndpointIP": "10.0.1.3",
            "Info": {"Host IP": node["Status"]["Addr"]},
        }
        web = {"VIP": "10.0.1.2", "Ports": [], "LocalLBIndex": 0, "Tasks": [member]}
        assert (await api.get("/networks/net?verbose=true"))["Services"] == {"web": web}
        refusal = PRECONDITION + f"network {network_id} is in use by service {service_id}"
        assert await api.refusal("DELETE", "/networks/net") == (400, refusal)
        assert (await api.request("DELETE", f"/services/{service_id}")).status == 200
        assert (await api.request("DELETE", "/networks/net")).status == 204


async def test_the_ingress_network_is_replaced(tmp_path: Path) -> None:
    """Not while a service publishes through it; without it none can; another may be made."""
    async with running_api(tmp_path) as api:
        await api.init()
        port = {"EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]}}
        service_id = await api.create("web", **port)
        refusal = f"ingress network cannot be removed because service {service_id} depends on it"
        assert await api.refusal("DELETE", "/networks/ingress") == (400, PRECONDITION + refusal)
        assert await api.refusal("DELETE", "/networks/bridge") == (
            400,
            PRECONDITION
            + f"network bridge ({(await api.get('/networks/bridge'))['Id']}) is a swarm predefined "
            "network and cannot be removed",
        )
        await api.request("DELETE", f"/services/{service_id}")
        assert (await api.request("DELETE", "/networks/ingress")).status == 204
        assert await api.refusal("POST", "/services/create", service_body("web", **port)) == (
            400,
            PRECONDITION + "service needs ingress network, but no ingress network is present",
        )
        config = {"IPAM": {"Config": [{"Subnet": "10.11.0.0/16", "Gateway": "10.11.0.2"}]}}
        await make(api, "my-ingress", Ingress=True, **config)
        service_id = await api.create("web", **port)
        service = await seen(
            api, f"/services/{service_id}", lambda found: found["Endpoint"].get("VirtualIPs")
        )
        assert service["Endpoint"]["VirtualIPs"][0]["Addr"] == "10.11.0.1/16"
        body = service_body("other", **joins("my-ingress"))
        assert await api.refusal("POST", "/services/create", body) == (
            400,
            INVALID + 'Service cannot be explicitly attached to the ingress network "my-ingress"',
        )


async def test_prune_removes_what_nobody_uses(tmp_path: Path) -> None:
    """Not ingress, not what a service is on, and only what the filters mean."""
    async with running_api(tmp_path) as api:
        await api.init()
        await make(api, "used")
        await make(api, "kept", Labels={"keep": "yes"})
        await make(api, "idle")
        await api.create("web", **joins("used"))
        path = '/networks/prune?filters={"label!":["keep=yes"]}'
        assert (await api.request("POST", path)).json == {"NetworksDeleted": ["idle"]}
        assert (await api.request("POST", path)).json == {"NetworksDeleted": None}
        ancient = '/networks/prune?filters={"until":["24h"]}'
        assert (await api.request("POST", ancient)).json == {"NetworksDeleted": None}
        names = {network["Name"] for network in await api.get("/networks")}
        assert names == {"ingress", "used", "kept"}
        status, text = await api.refusal("POST", '/networks/prune?filters={"until":["soon"]}')
        assert (status, text) == (
            400,
            "until 'soon' is neither a time (RFC 3339, or seconds) nor a duration",
        )


async def test_the_doctor_asks_every_node(tmp_path: Path) -> None:
    """Table and kernel side by side: what differs, or everything."""
    kernel = NullKernel()
    async with running_api(tmp_path, driver=NullDriver(kernel)) as api:
        await api.init()
        await api.wait_ready()
        await make(api, "net")
        await api.create("web", **joins("net"))
        url = "/swarm/doctor/networks"

        def settled(found: Any) -> bool:
            (node,) = found["Nodes"]
            runs = any(
                one["Kind"] == "vip" and one["Kernel"] != "no task" for one in node["Findings"]
            )
            return runs and node["Compared"] == 3 and node["Sent"] == node["Known"]

        await seen(api, f"{url}?all=1", settled)
        (node,) = (await api.get(url))["Nodes"]
        assert (node["Name"], node["Driver"], node["Err"]) == ("here", "null", "")
        assert (node["Findings"], node["Repaired"]) == ([], {})
        (node,) = (await api.get(f"{url}?all=1"))["Nodes"]
        assert sorted(one["Kind"] for one in node["Findings"]) == ["bridge", "bridge", "vip"]
        assert all(one["Table"] == one["Kernel"] for one in node["Findings"])
        kernel.table = replace(kernel.table, networks=kernel.table.networks[:1])
        (node,) = (await api.get(url))["Nodes"]
        assert {one["Kernel"] for one in node["Findings"]} == {""}
        kernel.problems = ("port 80/tcp is taken by nginx",)
        assert (await api.get("/info"))["Warnings"] == ["WARNING: port 80/tcp is taken by nginx"]


async def test_the_doctor_says_where_nothing_carries_traffic(tmp_path: Path) -> None:
    """A node without a driver is listed, with the reason."""
    async with running_api(tmp_path) as api:
        await api.init()
        await api.wait_ready()
        (node,) = (await api.get("/swarm/doctor/networks"))["Nodes"]
        assert node["Err"] == "it has no network driver that works"


async def test_a_pinned_address_has_to_be_possible(tmp_path: Path) -> None:
    """Labels that pin something are checked against spec and networks first."""
    async with running_api(tmp_path) as api:
        await api.init()
        await make(api, "net", IPAM={"Config": [{"Subnet": "10.5.0.0/24"}]})
        await seen(api, "/networks/net", lambda found: found["Status"]["IPAM"]["Subnets"])
        for labels, why in (
            ({"swarmctl.ip.net": "10.6.0.1"}, "10.6.0.1 is not in the network's subnet"),
            ({"swarmctl.vip.other": "10.5.0.9"}, "the service does not join that network"),
            ({"swarmctl.publish.80.ip": "10.0.0.1"}, "the service publishes no port 80"),
        ):
            body = service_body("web", Labels=labels, **joins("net"))
            status, message = await api.refusal("POST", "/services/create", body)
            assert status == 400
            assert why in message
        labels = {"swarmctl.ip.net": "10.5.0.7", "swarmctl.vip.net": "10.5.0.8"}
        body = service_body("web", replicas=2, Labels=labels, **joins("net"))
        reply = await api.request("POST", "/services/create", body)
        assert reply.json["Warnings"][-1] == (
            "label 'swarmctl.ip.net' has 1 addresses for 2 replicas: the rest get any"
        )
