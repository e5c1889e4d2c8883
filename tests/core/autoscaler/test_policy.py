"""Labels as rules (core/autoscaler/policy.py), and the services they are for (model/scaling.py)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from swarmctl.core.autoscaler.policy import Source, Step, check_scaling, policy_of, scaling_warnings
from swarmctl.core.errors import FailedPrecondition, InvalidArgument
from swarmctl.core.model import scaling
from swarmctl.core.model.labels import SERVICES, check_labels
from swarmctl.core.model.objects import ServiceRow
from swarmctl.core.model.scaling import Bounds, as_meant, as_scaled, bounds_of, replicas_of
from swarmctl.core.model.service import Scale, ScaleDecision, Service, ServicePrivate
from swarmctl.core.model.spec import GlobalService, ServiceMode, ServiceSpec
from tests.core.autoscaler.load import EPOCH, rules, spec_of


def refusal(spec: ServiceSpec, no_psi: str = "") -> str:
    with pytest.raises(InvalidArgument) as caught:
        check_scaling(spec, no_psi=lambda: no_psi)
    return str(caught.value)


def test_a_policy_is_what_the_labels_say() -> None:
    """Every label has its place in the rules."""
    policy = rules(
        min="2",
        max="20",
        target="cpu=70%, jobs=50 per replica",
        up__when="p95(latency_ms) > 300 for 30s",
        up__by="50%",
        down__when="cpu < 30%",
        down__by="1",
        cooldown="up=30s,down=4m",
        tolerance="5%",
        missing="zero",
        schedule="Mon-Fri 08:00-20:00 Europe/Zurich min=6",
        metric__jobs="http://queue:8080/depth#/pending",
        metric__latency_ms="prometheus+https://p:9090?query=x{a=1},secret=prom",
        mode="recommend",
    )
    cpu, jobs = policy.targets
    assert (policy.least, policy.most) == (2, 20)
    assert (cpu.metric, cpu.value, cpu.per_replica) == ("cpu", pytest.approx(0.7), False)
    assert (jobs.metric, jobs.value, jobs.per_replica) == ("jobs", 50.0, True)
    assert policy.up_by == Step(share=0.5)
    assert policy.down_by == Step(tasks=1)
    assert (policy.cooldown_up, policy.cooldown_down) == (30 * 10**9, 240 * 10**9)
    assert (policy.tolerance, policy.missing, policy.mode) == (0.05, "zero", "recommend")
    assert policy.schedule[0].least == 6
    assert policy.sources == {
        "jobs": Source("json", "http://queue:8080/depth#/pending", ""),
        "latency_ms": Source("prometheus", "https://p:9090?query=x{a=1}", "prom"),
    }
    assert policy.metrics() == {"cpu", "jobs", "latency_ms"}


@pytest.mark.parametrize(
    ("step", "count", "sign", "end"),
    [
        (Step(share=0.1), 70, 1, 77),
        (Step(share=0.1), 71, 1, 79),
        (Step(share=0.07), 100, -1, 93),
        (Step(share=0.1), 3, -1, 2),
        (Step(tasks=3), 3, 1, 6),
        (Step(to=2), 3, 1, 3),
    ],
)
def test_how_far_a_step_goes(step: Step, count: int, sign: int, end: int) -> None:
    """A share is rounded up, and what is a whole number is not; at least one task."""
    assert step.reach(count, sign) == end


def test_no_rules_without_labels() -> None:
    """A service without labels has no rules; nor has one whose mode is off."""
    assert policy_of(spec_of()) is None
    assert policy_of(spec_of(max="3", target="cpu=70%", mode="off")) is None
    assert bounds_of(spec_of(max="3", target="cpu=70%", mode="recommend")) is None
    assert bounds_of(spec_of(max="3", target="cpu=70%")) == Bounds(1, 3)


def test_a_refusal_shows_the_place() -> None:
    """A wrong value is refused with a caret under the place."""
    assert refusal(spec_of(max="5", up__when="cpu > 80% for 1m or mem > x")) == (
        "label 'swarmctl.scale.up.when': a number is expected\n"
        "  cpu > 80% for 1m or mem > x\n"
        "                            ^"
    )


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"target": "cpu=70%"}, "'swarmctl.scale.max' is needed"),
        ({"max": "5"}, "say nothing of when to scale"),
        ({"max": "5", "min": "0", "target": "cpu=70%"}, "at least 1"),
        ({"max": "5", "min": "6", "target": "cpu=70%"}, "min is 6 and max is 5"),
        ({"max": "500000", "target": "cpu=70%"}, "100000 tasks at most"),
        ({"max": "5", "target": "cpu"}, "METRIC=VALUE is expected"),
        ({"max": "5", "target": "cpu=70% for 5m"}, "METRIC=VALUE is expected"),
        ({"max": "5", "target": "cpu=0%"}, "more than 0"),
        ({"max": "5", "target": "cpu=70%,cpu=60%"}, "cpu is there twice"),
        ({"max": "5", "target": "replicas=3"}, "no target"),
        ({"max": "5", "target": "cpu=70% per replica"}, "of one task already"),
        ({"max": "5", "target": "cpu=70%", "up.by": "0"}, "leads nowhere"),
        ({"max": "5", "target": "cpu=70%", "down.by": "150%"}, "no more than 100%"),
        ({"max": "5", "down.when": "cpu < 1", "up.by": "2"}, "needs up.when or target"),
        ({"max": "5", "up.when": "pids > 9", "tolerance": "5%"}, "needs target"),
        ({"max": "5", "schedule": "08:00-20:00 min=2", "cooldown": "1m"}, "needs target, up.when"),
        ({"max": "5", "target": "cpu=70%", "tolerance": "100%"}, "nothing would ever happen"),
        ({"max": "5", "target": "cpu=70%", "cooldown": "up=1m,up=2m"}, "up is there twice"),
        ({"max": "5", "target": "cpu=70%", "cooldown": "48h"}, "from 0s to 24h0m0s long"),
        ({"max": "5", "target": "cpu=70%", "cooldown": "-1m"}, "from 0s to 24h0m0s long"),
        ({"max": "5", "target": "cpu=70%", "cooldown": "up 30s"}, "up=DURATION,down=DURATION"),
        ({"max": "5", "schedule": "08:00-20:00 min=6"}, "6 is not within the bounds"),
        ({"max": "5", "target": "cpu=70%", "metric.jobs": "http://q/"}, "no rule looks at"),
        ({"max": "5", "target": "j=7", "metric.j": "file:///etc/shadow"}, "an address is expected"),
        ({"max": "5", "target": "j=7", "metric.j": "queue:80"}, "an address is expected"),
        ({"max": "5", "target": "j=7", "metric.j-1": "http://q"}, "no name for a metric"),
        ({"max": "5", "target": "cpu=7", "metric.cpu": "http://q"}, "is there already"),
    ],
)
def test_what_cannot_be_is_refused(labels: dict[str, str], words: str) -> None:
    """Impossible bounds, units and rules are refused when they are written."""
    assert words in refusal(spec_of(**{name.replace(".", "__"): labels[name] for name in labels}))


@pytest.mark.parametrize(
    ("label", "value", "caret"),
    [
        ("cooldown", "up=30s, down=5x", "             ^"),
        ("cooldown", "up=30s,down=", "            ^"),
        ("target", "cpu=70%, mem=1 GiB", "               ^"),
        ("schedule", "08:00-20:00 min=2; 08:00-20:00 min=9", "                   ^"),
        ("schedule", "Mon-Fri 08:00-20:00 Europe/Zurch min=2", "                    ^"),
        ("up.when", "mem > 60% and cpu > 1ms", "                     ^"),
    ],
)
def test_the_caret_is_under_the_place(label: str, value: str, caret: str) -> None:
    """In labels of several parts, too."""
    told = refusal(spec_of(**{"max": "5", "target": "cpu=70%", label.replace(".", "__"): value}))
    assert told.splitlines()[1:] == [f"  {value}", f"  {caret}"], told


texts = st.one_of(
    st.text(
        "0123456789cpuemforan.,=%<>;:-+ Montohiy/#[]@?\N{ARABIC-INDIC DIGIT THREE}", max_size=30
    ),
    st.sampled_from(["5", "cpu=70%", "cpu > 1 for 1m", "08:00-20:00 min=2", "http://q/#/a", "50%"]),
)


@given(
    st.dictionaries(
        st.sampled_from(
            (
                *("min", "max", "target", "up.when", "up.by", "down.when", "down.by", "cooldown"),
                *("tolerance", "missing", "metric.jobs", "schedule", "mode"),
            )
        ),
        texts,
    )
)
def test_any_labels_are_rules_or_refused(values: dict[str, str]) -> None:
    """Whatever labels say, they are read or refused in words; bounds are the same everywhere."""
    spec = replace(spec_of(), Labels={f"swarmctl.scale.{name}": values[name] for name in values})
    try:
        check_labels(spec.Labels, on=SERVICES)
        check_scaling(spec)
    except InvalidArgument:
        return
    policy = policy_of(spec)
    acts = policy is not None and policy.mode == "act"
    assert bounds_of(spec) == (Bounds(policy.least, policy.most) if policy and acts else None)


@pytest.mark.parametrize(
    ("label", "value", "note"),
    [
        ("target", "cpu=70", "cpu=70 is 70 cores; a share of what a task reserves has a %"),
        ("up.when", "mem > 60", "mem > 60 is 60 bytes; a share of what a task reserves has a %"),
        (
            "up.when",
            "p95(lag_ms) > 300ms",
            (
                "p95(lag_ms) > 300ms asks about 0.3: units stand for seconds and bytes, and a "
                "number as lag_ms comes has none"
            ),
        ),
        ("up.when", "lag_ms > 300", ""),
        ("target", "lag_ms=2s", ""),
        ("target", "cpu=9", ""),
        ("target", "cpu=70%", ""),
        ("target", "mem=2KiB", ""),
    ],
)
def test_a_number_that_hardly_is_meant_is_pointed_out(label: str, value: str, note: str) -> None:
    """Percentages without a sign, units that a metric has already: they are not refused, since they
    can be meant; who writes them is told what they say."""
    labels = {"max": "5", "down__when": "pids < 1", label.replace(".", "__"): value}
    if "lag_ms" in value:
        labels["metric__lag_ms"] = "http://q/"
    assert scaling_warnings(spec_of(**labels)) == ((note,) if note else ())


@pytest.mark.parametrize(
    "url",
    [
        "http://me:hunter2@q/",
        "http://me:hunter2@q:99999/",
        "ftp://me:hunter2@q/",
        "prometheus+http://me:hunter2@/x",
        "http://me:hunter2@[q/",
        "me:hunter2@q",
    ],
)
def test_credentials_in_a_label_are_refused_and_not_repeated(url: str) -> None:
    """Labels are read by everybody, and so are error texts; whatever else is wrong with them."""
    text = refusal(spec_of(max="5", target="j=7", metric__j=url))
    assert "keep them in a secret" in text
    assert "hunter2" not in text


def test_only_replicated_services_have_a_number_to_change() -> None:
    """Labels of scaling are refused for services of another mode."""
    spec = replace(spec_of(max="5", target="cpu=70%"), Mode=ServiceMode(Global=GlobalService()))
    assert "are for replicated services" in refusal(spec)


def test_pressure_is_refused_where_nobody_can_tell_it() -> None:
    """psi metrics are refused with the reason that the nodes gave."""
    spec = spec_of(max="5", up__when="psi.cpu > 10%")
    check_scaling(spec)
    assert refusal(spec, "h1 has cgroup v1") == "psi metrics cannot be had here: h1 has cgroup v1"


@pytest.mark.parametrize(
    ("labels", "bounds", "up", "down"),
    [
        (
            {
                "swarm.autoscaler": "true",
                "swarm.autoscaler.minimum": "2",
                "swarm.autoscaler.maximum": "8",
            },
            (2, 8),
            "cpu > 85%",
            "cpu < 25%",
        ),
        (
            {
                "swarm.autoscaler": "true",
                "swarm.autoscaler.min_replicas": "3",
                "swarm.autoscaler.max_replicas": "9",
                "swarm.autoscaler.maximum_cpu": "70",
                "swarm.autoscaler.minimum_mem": "20",
            },
            (3, 9),
            "cpu > 70% or mem > 85%",
            "cpu < 25% and mem < 20%",
        ),
        (
            {
                "visualizer.autoscale.min": "1",
                "visualizer.autoscale.max": "5",
                "visualizer.autoscale.up.cpu": "75",
                "visualizer.autoscale.down.cpu": "12.5",
            },
            (1, 5),
            "cpu > 75%",
            "cpu < 12%",
        ),
    ],
)
def test_labels_of_older_addons_are_read(
    labels: dict[str, str], bounds: tuple[int, int], up: str, down: str
) -> None:
    """Who moves from an add-on keeps its labels; the user is told that they count."""
    spec = replace(spec_of(), Labels=labels)
    check_scaling(spec)
    policy = policy_of(spec)
    assert policy is not None
    assert (policy.least, policy.most) == bounds == bounds_of(spec)
    assert (policy.up_text, policy.down_text) == (up, down)
    assert "labels of an add-on" in scaling_warnings(spec)[0]


def test_addon_labels_that_make_no_sense_are_a_warning() -> None:
    """Labels that are not ours refuse nobody."""
    labels = {"swarm.autoscaler": "true", "swarm.autoscaler.maximum_mem": "70"}
    spec = replace(spec_of(cpus=0), Labels=labels)
    check_scaling(spec)
    assert "not understood" in scaling_warnings(spec)[0]


@pytest.mark.parametrize("name", ["min_replicas", "max_replicas"])
def test_a_number_that_no_service_can_have_scales_nothing(name: str) -> None:
    """A mistyped number of an add-on's labels costs no swarm its life, and is told."""
    labels = {"swarm.autoscaler": "true", f"swarm.autoscaler.{name}": "9000000"}
    spec = replace(spec_of(), Labels=labels)
    assert bounds_of(spec) is None
    assert "not understood" in scaling_warnings(spec)[0]


@pytest.mark.parametrize("text", ["\N{SUPERSCRIPT TWO}", "9" * 5000, "1.2.3", "x", ""])
@pytest.mark.parametrize("max_label", ["visualizer.autoscale.max", "swarm.autoscaler.max_replicas"])
def test_what_is_no_number_counts_as_not_said(max_label: str, text: str) -> None:
    """The add-on's default takes its place."""
    spec = replace(spec_of(), Labels={"swarm.autoscaler": "true", max_label: text})
    if max_label.startswith("visualizer"):
        spec = replace(spec, Labels={max_label: text})
    assert bounds_of(spec) == Bounds(1, 10)


def test_our_labels_come_before_an_addons() -> None:
    """A service with labels of both goes by ours alone."""
    spec = spec_of(max="4", target="cpu=70%")
    spec = replace(spec, Labels={**spec.Labels, "swarm.autoscaler": "true"})
    assert bounds_of(spec) == Bounds(1, 4)


# --- what a client means -------------------------------------------------------------------------


def row_of(spec: ServiceSpec, count: int | None = None) -> ServiceRow:
    scale = None if count is None else Scale(count=count)
    return ServiceRow(api=Service(ID="s", Spec=spec), private=ServicePrivate(scale=scale))


SCALED = {"min": "2", "max": "20", "target": "cpu=70%"}


def test_a_new_service_begins_within_its_bounds() -> None:
    """With the number it names, or the least where it names none."""
    for replicas, named, count in ((5, True, 5), (1, True, 2), (50, True, 20), (1, False, 2)):
        meant = as_meant(None, spec_of(replicas, **SCALED), EPOCH, named=named)
        assert meant.scale is not None
        assert meant.scale.count == count
        beyond = f"from 2 to 20 tasks: {replicas} is beyond that, so it has {count}"
        assert meant.warning.endswith(beyond if named and replicas != count else "")
        assert bool(meant.warning) is (named and replicas != count)


def test_what_is_shown_is_the_number_in_effect() -> None:
    """``inspect`` shows what scaling decided; the spec underneath keeps its own number."""
    row = row_of(spec_of(3, **SCALED), 8)
    shown = as_scaled(row).Spec.Mode.Replicated
    assert shown is not None
    assert (shown.Replicas, replicas_of(row)) == (8, 8)
    assert scaling.asked_replicas(row.api.Spec) == 3


@pytest.mark.parametrize(("posted", "named"), [(8, True), (1, False)])
def test_a_deployment_that_says_nothing_new_resets_nothing(posted: int, named: bool) -> None:
    """The number that ``inspect`` shows, or none at all, is no command."""
    row = row_of(spec_of(3, **SCALED), 8)
    meant = as_meant(row, spec_of(posted, **SCALED), EPOCH, named=named)
    assert meant.scale == row.private.scale
    assert (scaling.asked_replicas(meant.spec), meant.warning) == (3, "")


def test_a_number_that_changed_meanwhile_is_no_command() -> None:
    """A client that read 8 just before scaling made it 9 has said nothing either."""
    row = row_of(spec_of(3, **SCALED))
    step = ScaleDecision(at=EPOCH - 10**10, rule="", before=8, after=9, reason="")
    row = replace(row, private=replace(row.private, scale=Scale(count=9, decisions=(step,))))
    meant = as_meant(row, spec_of(8, **SCALED), EPOCH, named=True)
    assert (meant.scale, meant.warning) == (row.private.scale, "")
    later = as_meant(row, spec_of(8, **SCALED), EPOCH + 30 * 10**9, named=True)
    assert later.scale is not None
    assert (later.scale.count, later.scale.floor) == (9, 8)


def test_a_humans_number_is_the_least_for_a_while() -> None:
    """``scale web=12`` raises at once, ``scale web=5`` lowers nothing; both say what they do."""
    row = row_of(spec_of(3, **SCALED), 8)
    more = as_meant(row, spec_of(12, **SCALED), EPOCH, named=True)
    fewer = as_meant(row, spec_of(5, **SCALED), EPOCH, named=True)
    assert more.scale is not None
    assert fewer.scale is not None
    assert (more.scale.count, more.scale.floor) == (12, 12)
    assert (fewer.scale.count, fewer.scale.floor) == (8, 5)
    assert fewer.scale.until == EPOCH + scaling.FLOOR_NS
    assert fewer.warning == (
        "service web is scaled automatically, from 2 to 20 tasks: 5 is the least for 5m0s and "
        "resets nothing; it has 8 now"
    )
    beyond = as_meant(row, spec_of(90, **SCALED), EPOCH, named=True)
    assert ": 90 is beyond that, so 20 is the least for 5m0s" in beyond.warning
    assert [step.rule for step in more.scale.decisions] == ["floor"]
    assert fewer.scale.decisions == ()


def test_a_stack_file_with_a_number_of_its_own_resets_nothing() -> None:
    """Deployed again and again with 3, a service that load has brought to 8 stays at 8."""
    row = row_of(spec_of(3, **SCALED), 8)
    meant = as_meant(row, spec_of(3, **SCALED), EPOCH, named=True)
    assert meant.scale is not None
    assert meant.scale.count == 8


def test_nobody_scales_to_none_what_is_scaled() -> None:
    """0 would be left again at once: the error says what to do instead."""
    row = row_of(spec_of(3, **SCALED), 8)
    with pytest.raises(FailedPrecondition, match="service stop web"):
        as_meant(row, spec_of(0, **SCALED), EPOCH, named=True)


def test_without_its_labels_a_service_keeps_the_number_it_has() -> None:
    """Who reads it, takes the labels off and posts it back asks for what runs now."""
    row = row_of(spec_of(3, **SCALED), 8)
    meant = as_meant(row, replace(as_scaled(row).Spec, Labels={}), EPOCH, named=True)
    assert scaling.asked_replicas(meant.spec) == 8
    assert meant.scale is None


def test_new_bounds_count_at_once() -> None:
    """A number beyond the bounds is never in effect, whenever scaling next looks."""
    assert replicas_of(row_of(spec_of(3, **{**SCALED, "max": "6"}), 8)) == 6
    assert replicas_of(row_of(spec_of(3, **{**SCALED, "mode": "off"}), 8)) == 3
