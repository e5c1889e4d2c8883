"""Specs that follow each other: what is kept of them, and what changed in between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.model.codec import pack
from swarmctl.core.model.objects import ServiceRow
from swarmctl.core.model.revision import (
    REVISIONS_BYTES_MAX,
    REVISIONS_KEPT,
    history_of,
    rolled_back,
    updated,
)
from swarmctl.core.model.service import Service, ServicePrivate
from swarmctl.core.model.spec import (
    ContainerSpec,
    ReplicatedService,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from swarmctl.core.model.specdiff import spec_changes


def spec(image: str = "nginx", replicas: int = 1, **container: object) -> ServiceSpec:
    return ServiceSpec(
        Name="web",
        TaskTemplate=TaskSpec(ContainerSpec=ContainerSpec(Image=image, **container)),
        Mode=ServiceMode(Replicated=ReplicatedService(Replicas=replicas)),
    )


def row(first: ServiceSpec) -> ServiceRow:
    private = ServicePrivate(registry_auth="auth-0")
    return ServiceRow(api=Service(ID="web", CreatedAt=1, Spec=first), private=private)


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=25))
@settings(max_examples=50)
def test_history_is_every_change_in_order(images: list[str]) -> None:
    """Numbers count the changes, the newest ten before the present are kept with their auth."""
    service = row(spec("first"))
    expected = [(1, "first", "auth-0")]
    for at, image in enumerate(images, 1):
        changed = service.api.Spec.TaskTemplate.ContainerSpec.Image != image
        service = updated(service, spec(image), at, registry_auth=f"auth-{at}")
        if changed:
            expected.append((len(expected) + 1, image, f"auth-{at}"))
    shown = history_of(service)
    kept = expected[-REVISIONS_KEPT - 1 :]
    assert [(one.Number, one.Spec.TaskTemplate.ContainerSpec.Image) for one in shown] == [
        (number, image) for number, image, _ in reversed(kept)
    ]
    assert shown[0].Current
    assert not any(one.Current for one in shown[1:])


def test_large_specs_are_kept_as_far_as_they_fit() -> None:
    """The history never makes a row that no entry of the log could carry."""
    service = row(spec())
    for at in range(12):
        large = spec(f"v{at}", Env=("X=" + "x" * 100_000,))
        service = updated(service, large, at, registry_auth="")
    kept = service.private.revisions
    assert 0 < len(kept) < REVISIONS_KEPT
    assert sum(len(pack(one)) for one in kept) <= REVISIONS_BYTES_MAX
    assert kept[-1].number == 12


def test_a_swap_back_and_forth_is_noted_each_time() -> None:
    """Rolling back twice returns to the newer spec; each is a version of its own."""
    service = updated(row(spec("a")), spec("b"), 5, registry_auth="auth-b")
    service = rolled_back(service, 6)
    assert service.api.Spec == spec("a")
    assert service.private.registry_auth == "auth-0"
    service = rolled_back(service, 7)
    assert service.api.Spec == spec("b")
    assert [one.How for one in history_of(service)] == [
        "rolled back to 2",
        "rolled back to 1",
        "updated",
        "created",
    ]


def test_changes_are_told_in_words() -> None:
    """What everybody changes has a name, the rest its path; variables are told by name only."""
    before = spec("nginx:1", 1, Env=("A=1", "B=2"))
    after = spec("nginx:2", 3, Env=("A=1", "B=3", "C=4"), User="www")
    after = replace(after, Labels={"tier": "front"})
    task = replace(after.TaskTemplate, ForceUpdate=1)
    assert spec_changes(before, replace(after, TaskTemplate=task)) == (
        "Labels.tier (none) -> front",
        "replicas 1 -> 3",
        "env B, C",
        "image nginx:1 -> nginx:2",
        "User (none) -> www",
        "forced",
    )
    assert spec_changes(before, before) == ()
    assert spec_changes(after, spec("nginx:2", 3, Env=("C=4", "B=3", "A=1"), User="www")) == (
        "Labels.tier front -> (none)",
        "env reordered",
    )


def test_long_values_are_cut() -> None:
    """A value that would fill the screen is told by its beginning."""
    (text,) = spec_changes(spec(User="a"), spec(User="b" * 500))
    assert text == f"User a -> {'b' * 57}..."
