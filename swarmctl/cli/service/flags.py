"""The flags of ``service create`` and ``service update``: Docker's names, words and defaults."""

from __future__ import annotations

from ..flags import (
    BOOL,
    BYTES,
    COMMAND,
    DECIMAL,
    DURATION,
    FLOAT,
    INT,
    LIST,
    POSITIVE_DURATION,
    TEXT,
    UINT,
    Flag,
    Kind,
)
from .mounts import parse_mount
from .ports import parse_ports
from .values import (
    ADDRESS,
    CAPABILITY,
    CONFIG,
    CREDENTIAL_SPEC,
    ENVIRONMENT,
    HOST,
    LABEL,
    NETWORK,
    PAIR,
    PINNED,
    PREFERENCE,
    RESOURCE,
    SEARCH_DOMAIN,
    SECRET,
    ULIMIT,
)

MOUNT = Kind("mount", parse_mount, many=True)
PORT = Kind("port", parse_ports, many=True)

WAIT = (
    Flag(
        "detach",
        BOOL,
        "Exit immediately instead of waiting for the service to converge",
        short="d",
    ),
    Flag("quiet", BOOL, "Suppress progress output", short="q"),
)

SHARED = (
    *WAIT,
    Flag(
        "credential-spec",
        CREDENTIAL_SPEC,
        "Credential spec for managed service account (Windows only)",
    ),
    Flag("entrypoint", COMMAND, "Overwrite the default ENTRYPOINT of the image"),
    Flag("health-cmd", TEXT, "Command to run to check health"),
    Flag("health-interval", POSITIVE_DURATION, "Time between running the check (ms|s|m|h)"),
    Flag("health-retries", INT, "Consecutive failures needed to report unhealthy"),
    Flag(
        "health-start-interval",
        POSITIVE_DURATION,
        "Time between running the check during the start period (ms|s|m|h)",
    ),
    Flag(
        "health-start-period",
        POSITIVE_DURATION,
        "Start period for the container to initialize before counting retries (ms|s|m|h)",
    ),
    Flag("health-timeout", POSITIVE_DURATION, "Maximum time to allow one check to run (ms|s|m|h)"),
    Flag("hostname", TEXT, "Container hostname"),
    Flag(
        "init",
        BOOL,
        "Use an init inside each service container to forward signals and reap processes",
    ),
    Flag("isolation", TEXT, "Service container isolation mode"),
    Flag("limit-cpu", DECIMAL, "Limit CPUs"),
    Flag("limit-memory", BYTES, "Limit Memory"),
    Flag("limit-pids", INT, "Limit maximum number of processes (default 0 = unlimited)"),
    Flag("log-driver", TEXT, "Logging driver for service"),
    Flag("log-opt", PAIR, "Logging driver options"),
    Flag(
        "max-concurrent",
        UINT,
        "Number of job tasks to run concurrently (default equal to --replicas)",
    ),
    Flag("no-healthcheck", BOOL, "Disable any container-specified HEALTHCHECK"),
    Flag(
        "no-resolve-image",
        BOOL,
        "Do not query the registry to resolve image digest and supported platforms",
    ),
    Flag("oom-score-adj", INT, "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("read-only", BOOL, "Mount the container's root filesystem as read only"),
    Flag("replicas", UINT, "Number of tasks"),
    Flag(
        "replicas-max-per-node",
        UINT,
        "Maximum number of tasks per node (default 0 = unlimited)",
    ),
    Flag("reserve-cpu", DECIMAL, "Reserve CPUs"),
    Flag("reserve-memory", BYTES, "Reserve Memory"),
    Flag("stop-grace-period", DURATION, "Time to wait before force killing a container"),
    Flag("stop-signal", TEXT, "Signal to stop the container"),
    Flag("tty", BOOL, "Allocate a pseudo-TTY", short="t"),
    Flag("user", TEXT, "Username or UID (format: <name|uid>[:<group|gid>])", short="u"),
    Flag("with-registry-auth", BOOL, "Send registry authentication details to swarm agents"),
    Flag("workdir", TEXT, "Working directory inside the container", short="w"),
)


def _rolling(verb: str, task: str, actions: str) -> tuple[Flag, ...]:
    return (
        Flag(f"{verb}-delay", DURATION, f"Delay between {task} (ns|us|ms|s|m|h)"),
        Flag(f"{verb}-failure-action", TEXT, f"Action on {verb} failure ({actions})"),
        Flag(f"{verb}-max-failure-ratio", FLOAT, f"Failure rate to tolerate during {verb}"),
        Flag(f"{verb}-monitor", DURATION, f"How long each task's {verb} is monitored for failure"),
        Flag(f"{verb}-order", TEXT, f'Order of {verb} ("start-first", "stop-first")'),
        Flag(f"{verb}-parallelism", UINT, f"Maximum of simultaneous {task} (0: all at once)"),
    )


def _restart(delay: str, condition: str) -> tuple[Flag, ...]:
    return (
        Flag(
            "restart-condition",
            TEXT,
            'Restart when condition is met ("none", "on-failure", "any")',
            default=condition,
        ),
        Flag("restart-delay", DURATION, "Delay between restart attempts", default=delay),
        Flag("restart-max-attempts", UINT, "Maximum number of restarts before giving up"),
        Flag("restart-window", DURATION, "Window used to evaluate the restart policy"),
    )


ROLLING = (
    *_rolling("update", "updates", '"pause", "continue", "rollback"'),
    *_rolling("rollback", "task rollbacks", '"pause", "continue"'),
)

EXTENSIONS = (
    Flag("ip", PINNED, "The service's own (virtual) address on a network ([network=]address)"),
    Flag("rebalance", TEXT, 'Move tasks to a node that joins or returns ("on-join", "never")'),
    Flag(
        "scale-cooldown",
        TEXT,
        "How long to hold still after a step (DURATION, or up=DURATION,down=DURATION)",
    ),
    Flag("scale-down-by", TEXT, "How many tasks one step down takes away (1, 50%, to=2)"),
    Flag("scale-down-when", TEXT, "Take tasks away when this holds (cpu < 30% for 5m)"),
    Flag("scale-max", TEXT, "Never more tasks than this"),
    Flag("scale-metric", LIST, "A metric of your own and where it comes from (NAME=ADDRESS)"),
    Flag("scale-min", TEXT, "Never fewer tasks than this"),
    Flag(
        "scale-missing",
        TEXT,
        'What a metric without a value counts as ("hold", "ignore", "zero")',
    ),
    Flag("scale-mode", TEXT, 'Scale, only say so, or neither ("act", "recommend", "off")'),
    Flag("scale-schedule", LIST, "Bounds at certain times (Mon-Fri 08:00-20:00 ZONE min=6)"),
    Flag("scale-target", LIST, "Keep a metric near a value (cpu=70%)"),
    Flag("scale-tolerance", TEXT, "How far from its target a metric may be (10%)"),
    Flag("scale-up-by", TEXT, "How many tasks one step up adds (2, 50%, to=10)"),
    Flag("scale-up-when", TEXT, "Add tasks when this holds (cpu > 80% for 1m)"),
    Flag("strategy", TEXT, 'How tasks are laid out ("spread", "binpack", or a plugin\'s)'),
)
"""What Swarm does not have and labels carry (labels.py)."""

CREATE = (
    *SHARED,
    *ROLLING,
    *_restart("5s", "any"),
    *EXTENSIONS,
    Flag("cap-add", CAPABILITY, "Add Linux capabilities"),
    Flag("cap-drop", CAPABILITY, "Drop Linux capabilities"),
    Flag("config", CONFIG, "Specify configurations to expose to the service"),
    Flag("constraint", LIST, "Placement constraints"),
    Flag("container-label", LABEL, "Container labels"),
    Flag(
        "depends-on",
        LIST,
        "Hold back new tasks until a service is that far (service:running|healthy|completed)",
    ),
    Flag("dns", ADDRESS, "Set custom DNS servers"),
    Flag("dns-option", LIST, "Set DNS options"),
    Flag("dns-search", SEARCH_DOMAIN, "Set custom DNS search domains"),
    Flag("endpoint-mode", TEXT, "Endpoint mode (vip or dnsrr)", default="vip"),
    Flag("env", ENVIRONMENT, "Set environment variables", short="e"),
    Flag("env-file", LIST, "Read in a file of environment variables"),
    Flag("generic-resource", RESOURCE, "User defined resources"),
    Flag("group", LIST, "Set one or more supplementary user groups for the container"),
    Flag("host", HOST, "Set one or more custom host-to-IP mappings (host:ip)"),
    Flag("label", LABEL, "Service labels", short="l"),
    Flag(
        "mode",
        TEXT,
        'Service mode ("replicated", "global", "replicated-job", "global-job")',
        default="replicated",
    ),
    Flag("mount", MOUNT, "Attach a filesystem mount to the service"),
    Flag("name", TEXT, "Service name"),
    Flag("network", NETWORK, "Network attachments"),
    Flag("placement-pref", PREFERENCE, "Add a placement preference"),
    Flag("publish", PORT, "Publish a port as a node port", short="p"),
    Flag("secret", SECRET, "Specify secrets to expose to the service"),
    Flag("sysctl", PAIR, "Sysctl options"),
    Flag("ulimit", ULIMIT, "Ulimit options"),
)

UPDATE = (
    *SHARED,
    *ROLLING,
    *_restart("", ""),
    *EXTENSIONS,
    Flag("args", COMMAND, "Service command args"),
    Flag("cap-add", CAPABILITY, "Add Linux capabilities"),
    Flag("cap-drop", CAPABILITY, "Drop Linux capabilities"),
    Flag("config-add", CONFIG, "Add or update a config file on a service"),
    Flag("config-rm", LIST, "Remove a configuration file"),
    Flag("constraint-add", LIST, "Add or update a placement constraint"),
    Flag("constraint-rm", LIST, "Remove a constraint"),
    Flag("container-label-add", LABEL, "Add or update a container label"),
    Flag("container-label-rm", LIST, "Remove a container label by its key"),
    Flag(
        "depends-on-add",
        LIST,
        "Add or update a service to wait for (service:running|healthy|completed)",
    ),
    Flag("depends-on-rm", LIST, "Remove a service to wait for, by its name"),
    Flag("dns-add", ADDRESS, "Add or update a custom DNS server"),
    Flag("dns-option-add", LIST, "Add or update a DNS option"),
    Flag("dns-option-rm", LIST, "Remove a DNS option"),
    Flag("dns-rm", LIST, "Remove a custom DNS server"),
    Flag("dns-search-add", SEARCH_DOMAIN, "Add or update a custom DNS search domain"),
    Flag("dns-search-rm", LIST, "Remove a DNS search domain"),
    Flag("endpoint-mode", TEXT, "Endpoint mode (vip or dnsrr)"),
    Flag("env-add", ENVIRONMENT, "Add or update an environment variable"),
    Flag("env-rm", LIST, "Remove an environment variable"),
    Flag("force", BOOL, "Force update even if no changes require it"),
    Flag("generic-resource-add", RESOURCE, "Add a Generic resource"),
    Flag("generic-resource-rm", LIST, "Remove a Generic resource"),
    Flag("group-add", LIST, "Add an additional supplementary user group to the container"),
    Flag("group-rm", LIST, "Remove a previously added supplementary user group"),
    Flag("host-add", HOST, 'Add a custom host-to-IP mapping ("host:ip")'),
    Flag("host-rm", LIST, 'Remove a custom host-to-IP mapping ("host:ip")'),
    Flag("image", TEXT, "Service image tag"),
    Flag("label-add", LABEL, "Add or update a service label"),
    Flag("label-rm", LIST, "Remove a label by its key"),
    Flag("mount-add", MOUNT, "Add or update a mount on a service"),
    Flag("mount-rm", LIST, "Remove a mount by its target path"),
    Flag("network-add", NETWORK, "Add a network"),
    Flag("network-rm", LIST, "Remove a network"),
    Flag("placement-pref-add", PREFERENCE, "Add a placement preference"),
    Flag("placement-pref-rm", PREFERENCE, "Remove a placement preference"),
    Flag("publish-add", PORT, "Add or update a published port"),
    Flag("publish-rm", PORT, "Remove a published port by its target port"),
    Flag("rollback", BOOL, "Rollback to previous specification"),
    Flag("secret-add", SECRET, "Add or update a secret on a service"),
    Flag("secret-rm", LIST, "Remove a secret"),
    Flag("sysctl-add", PAIR, "Add or update a Sysctl option"),
    Flag("sysctl-rm", LIST, "Remove a Sysctl option"),
    Flag("ulimit-add", ULIMIT, "Add or update a ulimit option"),
    Flag("ulimit-rm", LIST, "Remove a ulimit option"),
)
