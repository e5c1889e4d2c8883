"""The groups below the root: what can be done with nodes, services, secrets and the rest."""

from __future__ import annotations

from .command import Group, Lazy

network = Group(
    "network",
    "Manage networks",
    {
        "create": Lazy("swarmctl.cli.network:create", "Create a network"),
        "doctor": Lazy(
            "swarmctl.cli.doctor:doctor",
            "Compare what every node's kernel has with what it shall have",
        ),
        "inspect": Lazy(
            "swarmctl.cli.network:inspect", "Display detailed information on one or more networks"
        ),
        "ls": Lazy("swarmctl.cli.network:list_networks", "List networks"),
        "prune": Lazy("swarmctl.cli.network:prune", "Remove all unused networks"),
        "rm": Lazy("swarmctl.cli.network:remove", "Remove one or more networks"),
    },
    aliases={"list": "ls", "remove": "rm"},
)

node = Group(
    "node",
    "Manage Swarm nodes",
    {
        "demote": Lazy(
            "swarmctl.cli.node:demote", "Demote one or more nodes from manager in the swarm"
        ),
        "inspect": Lazy(
            "swarmctl.cli.node:inspect", "Display detailed information on one or more nodes"
        ),
        "ls": Lazy("swarmctl.cli.node:list_nodes", "List nodes in the swarm"),
        "promote": Lazy(
            "swarmctl.cli.node:promote", "Promote one or more nodes to manager in the swarm"
        ),
        "ps": Lazy(
            "swarmctl.cli.node:ps",
            "List tasks running on one or more nodes, defaults to current node",
        ),
        "rm": Lazy("swarmctl.cli.node:remove", "Remove one or more nodes from the swarm"),
        "update": Lazy("swarmctl.cli.node:update", "Update a node"),
    },
    aliases={"list": "ls", "remove": "rm"},
)

service = Group(
    "service",
    "Manage Swarm services",
    {
        "create": Lazy("swarmctl.cli.service.create:create", "Create a new service"),
        "explain": Lazy(
            "swarmctl.cli.explain:explain_service", "Tell why tasks of a service do not run"
        ),
        "history": Lazy(
            "swarmctl.cli.service.revisions:history",
            "List the versions of a service that can be gone back to",
        ),
        "inspect": Lazy(
            "swarmctl.cli.service.inspect:inspect",
            "Display detailed information on one or more services",
        ),
        "logs": Lazy("swarmctl.cli.logs:service_logs", "Fetch the logs of a service or task"),
        "ls": Lazy("swarmctl.cli.service.lists:list_services", "List services"),
        "ps": Lazy("swarmctl.cli.service.lists:ps", "List the tasks of one or more services"),
        "rm": Lazy("swarmctl.cli.service.lists:remove", "Remove one or more services"),
        "rollback": Lazy(
            "swarmctl.cli.service.revisions:rollback",
            "Revert changes to a service's configuration",
        ),
        "scale": Lazy(
            "swarmctl.cli.service.scale:scale", "Scale one or multiple replicated services"
        ),
        "scaling": Lazy(
            "swarmctl.cli.service.scaling:scaling",
            "Tell why a service has as many tasks as it has, and try rules",
        ),
        "start": Lazy("swarmctl.cli.service.stop:start", "Start one or more stopped services"),
        "stop": Lazy(
            "swarmctl.cli.service.stop:stop",
            "Stop all tasks of one or more services and keep their specs",
        ),
        "update": Lazy("swarmctl.cli.service.update:update", "Update a service"),
    },
    aliases={"list": "ls", "remove": "rm"},
)

task = Group(
    "task",
    "Look at single tasks",
    {
        "explain": Lazy("swarmctl.cli.explain:explain_task", "Tell why a task does not run"),
        "inspect": Lazy(
            "swarmctl.cli.task:inspect", "Display detailed information on one or more tasks"
        ),
        "logs": Lazy("swarmctl.cli.logs:task_logs", "Fetch the logs of a task"),
        "ls": Lazy("swarmctl.cli.task:list_tasks", "List the tasks of the swarm"),
    },
    aliases={"list": "ls"},
)

plugin = Group(
    "plugin",
    "Show what the daemon is made of",
    {
        "check": Lazy(
            "swarmctl.cli.plugin_check:check",
            "Check a plugin: that it loads, and that what it makes keeps the laws",
        ),
        "inspect": Lazy(
            "swarmctl.cli.plugin:inspect", "Display detailed information on one or more plugins"
        ),
        "ls": Lazy("swarmctl.cli.plugin:list_plugins", "List the plugins of the daemon"),
        "path": Lazy(
            "swarmctl.cli.plugin:path", "Print the directory to import swarmctl.plugins from"
        ),
    },
    aliases={"list": "ls"},
)

secret = Group(
    "secret",
    "Manage Swarm secrets",
    {
        "create": Lazy(
            "swarmctl.cli.secret:create", "Create a secret from a file or STDIN as content"
        ),
        "inspect": Lazy(
            "swarmctl.cli.secret:inspect", "Display detailed information on one or more secrets"
        ),
        "ls": Lazy("swarmctl.cli.secret:list_secrets", "List secrets"),
        "prune": Lazy(
            "swarmctl.cli.secret:prune", "Remove older versions of secrets that nothing uses"
        ),
        "rm": Lazy("swarmctl.cli.secret:remove", "Remove one or more secrets"),
        "update": Lazy(
            "swarmctl.cli.secret:update", "Make a new version of a secret, or change its labels"
        ),
    },
    aliases={"list": "ls", "remove": "rm"},
)

config = Group(
    "config",
    "Manage Swarm configs",
    {
        "create": Lazy("swarmctl.cli.config:create", "Create a config from a file or STDIN"),
        "inspect": Lazy(
            "swarmctl.cli.config:inspect", "Display detailed information on one or more configs"
        ),
        "ls": Lazy("swarmctl.cli.config:list_configs", "List configs"),
        "prune": Lazy(
            "swarmctl.cli.config:prune", "Remove older versions of configs that nothing uses"
        ),
        "rm": Lazy("swarmctl.cli.config:remove", "Remove one or more configs"),
        "update": Lazy(
            "swarmctl.cli.config:update", "Make a new version of a config, or change its labels"
        ),
    },
    aliases={"list": "ls", "remove": "rm"},
)
