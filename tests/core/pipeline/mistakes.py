"""Mistakes of deciders that the model has to notice, each one small change of their source."""

from __future__ import annotations

from tests.sim.seeded_bugs import BUGS, Bug, Patch

SEEDS = 300
ORCHESTRATOR = "core.orchestrator"

MISTAKES = {
    **{
        name: BUGS[name]
        for name in (
            *("one-too-many", "one-job-too-many", "promotion-forgotten", "reaps-the-living"),
            *(
                "old-task-leaves-early",
                "floor-forgotten",
                "successor-does-not-wait",
                "conflicts-written",
            ),
        )
    },
    "one-attempt-more": Bug(
        "a task is restarted once more than its policy allows",
        (
            Patch(
                f"{ORCHESTRATOR}.restart",
                "may_restart",
                "return record.attempts < policy.MaxAttempts",
                "return record.attempts <= policy.MaxAttempts",
            ),
        ),
    ),
    "settled-slots-are-filled": Bug(
        "a slot whose policy wants no other task gets one",
        (
            Patch(
                f"{ORCHESTRATOR}.replicated",
                "_is_vacant",
                "return removed or may_restart(tending.service, newest, tending.now)",
                "return True",
            ),
        ),
    ),
    "stopped-runs-on": Bug(
        "a stopped service keeps its tasks",
        (
            Patch(
                f"{ORCHESTRATOR}.decide",
                "decide",
                "if service.api.Stopped is not None:",
                "if False:",
            ),
        ),
    ),
    "drained-nodes-kept": Bug(
        "a global service stays on a node that is drained",
        (
            Patch(
                f"{ORCHESTRATOR}.global_",
                "standing_of",
                ' or availability == "drain"',
                "",
            ),
        ),
    ),
    "constraints-not-held-to": Bug(
        "nobody has to leave a node that its constraints refuse",
        (
            Patch(
                f"{ORCHESTRATOR}.enforcer",
                "_meets_constraints",
                "return is_outdated and _allows(task.api.Spec, node)",
                "return True",
            ),
        ),
    ),
    "unready-nodes-used": Bug(
        "tasks are given to nodes that do not answer, or take none",
        (
            Patch(
                "core.scheduler.filters",
                "ReadyFilter.check",
                "return _is_ready",
                "return bool",
            ),
        ),
    ),
    "secrets-removed-under-services": Bug(
        "a secret goes though a service uses it",
        (
            Patch(
                "core.store.store",
                "_check",
                "holders = tuple(sorted(view.referrers(requirement.ref)))",
                "holders = ()",
            ),
        ),
    ),
    "runs-left-over": Bug(
        "a job's new run leaves the former one's tasks alone",
        (
            Patch(
                f"{ORCHESTRATOR}.jobs",
                "end_earlier_runs",
                "tending.wish(left, TaskState.REMOVE)",
                "pass",
            ),
        ),
    ),
}
