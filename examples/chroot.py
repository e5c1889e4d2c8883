"""An executor that runs tasks in directories with a root file system: swarmctl plugin ``chroot``.

    swarmctl daemon --executor chroot        # with chroot.py in the plugin directory

An image is a directory below ``/var/lib/chroots`` (``[settings.chroot] images = "/srv/roots"``), so
``swarmctl service create alpine sleep 60`` runs in ``/var/lib/chroots/alpine``. Tasks are processes
of the host in every other way, and the built-in executor for those does the work: it keeps them
while the daemon restarts, stops them, limits them and reads their output. What is different is what
is started, and what a task may ask for.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from swarmctl.plugins import ExecutorError, ExecutorSettings, PluginInfo, hookimpl
from swarmctl.plugins.process_exec.controller import ProcessTask
from swarmctl.plugins.process_exec.executor import ProcessExecutor

if TYPE_CHECKING:
    from swarmctl.plugins import ExecutorDescription
    from swarmctl.plugins.model import ContainerSpec, TaskAssignment

NAME = "chroot"
IMAGES = "/var/lib/chroots"
REFUSED = ("Dir", "Groups", "Healthcheck")  # they would mean the host's directories and programs


class ChrootExecutor(ProcessExecutor):
    """Plain processes, each in a root of its own."""

    name = NAME

    def __init__(self, settings: ExecutorSettings) -> None:
        super().__init__(settings)
        self._images = Path(settings.options.get("images", IMAGES))

    async def describe(self) -> ExecutorDescription:
        """Describe the host, under this executor's name."""
        found = await super().describe()
        engine = found.node.Engine
        labels = {**engine.Labels, "swarmctl.executor": NAME}
        node = replace(found.node, Engine=replace(engine, Labels=labels))
        return replace(found, node=node)

    def controller(self, assignment: TaskAssignment) -> ChrootTask:
        """Return a handle on a task."""
        return ChrootTask(self, assignment)

    def directory(self, spec: ContainerSpec) -> Path:
        """Return the directory that an image is."""
        return self._images / spec.Image.partition("@")[0].removesuffix(":latest")

    def objection(self, spec: ContainerSpec) -> str:
        """Return why a task cannot run, in words; "" when it can."""
        root = self.directory(spec)
        if self._images.resolve() not in root.resolve().parents or not root.is_dir():
            return f"image {spec.Image!r}: there is no directory {root}"
        asked = [field for field in REFUSED if getattr(spec, field)]
        return f"the chroot executor cannot give a task {', '.join(asked)}" if asked else ""


class ChrootTask(ProcessTask):
    """A task whose command becomes one that changes the root first."""

    def __init__(self, executor: ChrootExecutor, assignment: TaskAssignment) -> None:
        task, self._objection = assignment.task, ""
        spec = task.Spec.ContainerSpec
        if spec is not None and (spec.Command or spec.Args):  # else the built-in refuses it
            self._objection = executor.objection(spec)
            user = (f"--userspec={spec.User}",) if spec.User else ()
            command = ("chroot", *user, str(executor.directory(spec)), *spec.Command, *spec.Args)
            spec = replace(spec, Image="host", Command=command, Args=(), User="")
            task = replace(task, Spec=replace(task.Spec, ContainerSpec=spec))
        super().__init__(executor, replace(assignment, task=task))

    async def prepare(self) -> None:
        """Refuse what cannot run, before anything is made; else as for any process."""
        if self._objection:
            raise ExecutorError(self._objection)
        await super().prepare()


@hookimpl
def swarmctl_plugin_info() -> PluginInfo:
    return PluginInfo(name=NAME, version="1.0")


@hookimpl
def swarmctl_executor(name: str, settings: ExecutorSettings) -> ChrootExecutor | None:
    return ChrootExecutor(settings) if name == NAME else None
