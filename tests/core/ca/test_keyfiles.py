"""The node's files: modes, refusals, and a crash at every line of every replacement."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from swarmctl.core.ca import keyfiles
from swarmctl.core.ca.keyfiles import (
    Binding,
    KeyPair,
    Machine,
    bind_machine,
    load,
    save_pair,
    save_root,
    this_machine,
)
from swarmctl.core.errors import (
    CertificateMalformed,
    CopiedState,
    IdentityBroken,
    IdentityMissing,
    StorageFailed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from .conftest import Swarm


@pytest.fixture
def pairs(swarm: Swarm) -> list[KeyPair]:
    """Three generations of one node's certificate and key."""
    return [KeyPair(*swarm.issue()) for _ in range(3)]


@pytest.fixture
def state(tmp_path: Path, swarm: Swarm, pairs: list[KeyPair]) -> Path:
    """A state directory that holds the first generation."""
    directory = tmp_path / "state"
    save_root(directory, swarm.root.cert_pem)
    save_pair(directory, pairs[0])
    return directory


def certificates(state: Path) -> Path:
    return state / "certificates"


def test_what_was_saved_is_loaded(state: Path, swarm: Swarm, pairs: list[KeyPair]) -> None:
    """Root, chain and key come back byte for byte, generation after generation."""
    for pair in pairs:
        save_pair(state, pair)
        stored = load(state)
        assert stored.root_pem == swarm.root.cert_pem
        assert stored.pair == pair
    assert "PRIVATE" not in repr(stored)


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_names_and_modes_are_swarms(
    tmp_path: Path, swarm: Swarm, pairs: list[KeyPair], umask: int
) -> None:
    """Directory 0700, certificates 0644, key 0600, whatever the umask; nothing else is left."""
    before = os.umask(umask)
    try:
        save_root(tmp_path / "new" / "state", swarm.root.cert_pem)
        save_pair(tmp_path / "new" / "state", pairs[0])
        bind_machine(tmp_path / "new" / "state", Machine(None, "host"))
    finally:
        os.umask(before)
    state = tmp_path / "new" / "state"
    modes = {
        path.relative_to(state).as_posix(): stat.S_IMODE(path.stat().st_mode)
        for path in state.rglob("*")
    }
    assert modes == {
        "certificates": 0o700,
        "certificates/swarm-root-ca.crt": 0o644,
        "certificates/swarm-node.crt": 0o644,
        "certificates/swarm-node.key": 0o600,
        "machine.json": 0o600,
    }
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_node_in_no_swarm_is_told_from_half_an_identity(state: Path) -> None:
    """Nothing at all is one sentence; a missing part is named."""
    with pytest.raises(IdentityMissing, match="in no swarm"):
        load(state / "elsewhere")
    for name in ("swarm-root-ca.crt", "swarm-node.crt", "swarm-node.key"):
        path = certificates(state) / name
        content, mode = path.read_bytes(), path.stat().st_mode
        path.unlink()
        with pytest.raises(IdentityMissing, match=rf"without {name};"):
            load(state)
        path.write_bytes(content)
        path.chmod(mode)
    load(state)
    for path in certificates(state).glob("swarm-node.*"):
        path.unlink()
    with pytest.raises(IdentityMissing, match=r"without swarm-node.crt and swarm-node.key"):
        load(state)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("swarm-root-ca.crt", b"", "no X.509"),
        ("swarm-node.crt", b"noise", "no X.509"),
        ("swarm-node.key", b"", "no unencrypted private key"),
        ("swarm-node.key", b"x" * (1024 * 1024 + 1), "larger than"),
    ],
)
def test_damage_is_named_by_file(state: Path, name: str, content: bytes, says: str) -> None:
    """A file that cannot be parsed is refused with its path and the reason."""
    (certificates(state) / name).write_bytes(content)
    with pytest.raises(IdentityBroken, match=f"{name}.*{says}"):
        load(state)


def test_halves_that_do_not_fit_are_refused(state: Path, pairs: list[KeyPair]) -> None:
    """Certificate and key of two generations are no identity, and a leaf is no root."""
    (certificates(state) / "swarm-node.crt").write_bytes(pairs[1].cert_pem)
    with pytest.raises(IdentityBroken, match="does not belong to the certificate") as refused:
        load(state)
    assert "PRIVATE" not in str(refused.value)
    with pytest.raises(CertificateMalformed, match="does not belong"):
        save_pair(state, KeyPair(pairs[1].cert_pem, pairs[0].key_pem))
    with pytest.raises(CertificateMalformed, match="no CA"):
        save_root(state, pairs[0].cert_pem)
    save_pair(state, pairs[2])  # a broken pair does not stand in the way of a good one
    assert load(state).pair == pairs[2]


def test_a_key_open_to_others_is_refused(state: Path) -> None:
    """A key that any other user could have read is not used, and the remedy is said."""
    (certificates(state) / "swarm-node.key").chmod(0o640)
    with pytest.raises(IdentityBroken, match=r"mode 0640\).*chmod 600"):
        load(state)


def test_what_the_file_system_refuses_is_named(state: Path, pairs: list[KeyPair]) -> None:
    """A path that is no file, or a directory that is none, is StorageFailed with the path."""
    key = certificates(state) / "swarm-node.key"
    key.unlink()
    key.mkdir()
    with pytest.raises(StorageFailed, match=r"cannot read .*swarm-node.key: Is a directory"):
        load(state)
    (state / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match=r"Not a directory|File exists"):
        save_pair(state / "file", pairs[1])
    with pytest.raises(StorageFailed, match=r"cannot remove .*: Is a directory"):
        keyfiles.remove(state)


def test_leaving_forgets_everything(state: Path) -> None:
    """After remove no key material is left, and removing nothing is no error."""
    bind_machine(state, Machine("machine-id:1", "host"))
    (certificates(state) / "swarm-node.key.new").write_bytes(b"left by a crash")
    for _ in range(2):
        keyfiles.remove(state)
    assert [path.name for path in state.rglob("*")] == ["certificates"]
    with pytest.raises(IdentityMissing, match="in no swarm"):
        load(state)


# --- crashes --------------------------------------------------------------------------------------


# The crash is an exception here, so files it leaves open are collected, with a warning.
leaves_files_open = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file:ResourceWarning"
)


class Crashed(BaseException):
    """The process ends here."""


def crash_at(line_number: int, work: Callable[[], None]) -> bool:
    """Run ``work`` and end it before its n-th executed line of keyfiles.py; False: it was done."""
    executed = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal executed
        if frame.f_code.co_filename != keyfiles.__file__:
            return None
        if event == "line":
            executed += 1
            if executed == line_number:
                raise Crashed
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Crashed:
        return True
    finally:
        sys.settrace(before)
    return False


def crashes(state: Path, scratch: Path, work: Callable[[Path], None]) -> Iterator[Path]:
    """Yield each distinct state in which a crash in ``work`` can leave ``state``, in order."""
    previous = None
    for line_number in range(1, 1000):
        copy = scratch / f"{line_number}"
        shutil.copytree(state, copy)
        crashed = crash_at(line_number, lambda copy=copy: work(copy))  # type: ignore[misc]
        if contents(copy) != previous:
            previous = contents(copy)
            yield copy
        shutil.rmtree(copy)
        if not crashed:
            return
    pytest.fail("the work never ended")


def contents(state: Path) -> frozenset[tuple[str, bytes]]:
    files = (path for path in state.rglob("*") if path.is_file())
    return frozenset((path.name, path.read_bytes()) for path in files)


@leaves_files_open
def test_a_crash_at_any_line_leaves_one_pair_whole(
    state: Path, tmp_path: Path, pairs: list[KeyPair]
) -> None:
    """Old pair up to the key's replacement, new pair from then on, never a mixture or nothing;
    and a second replacement that crashes too, anywhere, keeps to that."""
    seen: list[KeyPair] = []
    left: list[Path] = []
    for crashed in crashes(state, tmp_path / "one", lambda at: save_pair(at, pairs[1])):
        left.append(shutil.copytree(crashed, tmp_path / f"left{len(left)}"))
        seen.append(load(crashed).pair)
        assert load(crashed).pair == seen[-1]  # what load itself tidies stays loadable
    switch = seen.index(pairs[1])
    assert seen == [pairs[0]] * switch + [pairs[1]] * (len(seen) - switch)
    # Untouched, temporary chain (empty, full), dot chain, temporary key (empty, full) | key, done.
    assert (switch, len(seen)) == (6, 8)

    for number, start in enumerate(left):
        again = tmp_path / f"two{number}"
        for crashed in crashes(start, again, lambda at: save_pair(at, pairs[2])):
            assert load(crashed).pair in (seen[number], pairs[2])


@leaves_files_open
def test_a_crash_while_load_heals_changes_nothing(
    state: Path, tmp_path: Path, pairs: list[KeyPair]
) -> None:
    """A load that ends in the middle of its own tidying is followed by one that succeeds."""
    (certificates(state) / ".swarm-node.crt").write_bytes(pairs[1].cert_pem)
    (certificates(state) / "swarm-node.key").write_bytes(pairs[1].key_pem)
    for crashed in crashes(state, tmp_path / "scratch", lambda at: load(at) and None):
        assert load(crashed).pair == pairs[1]
        assert not (certificates(crashed) / ".swarm-node.crt").exists()


@leaves_files_open
def test_a_crash_before_the_first_pair_says_what_is_missing(
    tmp_path: Path, swarm: Swarm, pairs: list[KeyPair]
) -> None:
    """A join interrupted anywhere is either a whole identity or IdentityMissing, never broken."""
    (tmp_path / "empty").mkdir()

    def join(at: Path) -> None:
        save_root(at, swarm.root.cert_pem)
        save_pair(at, pairs[0])

    outcomes = set()
    for crashed in crashes(tmp_path / "empty", tmp_path / "scratch", join):
        try:
            assert load(crashed).pair == pairs[0]
            outcomes.add("whole")
        except IdentityMissing:
            outcomes.add("missing")
    assert outcomes == {"whole", "missing"}


def test_nothing_is_renamed_before_it_is_on_disk(
    state: Path, pairs: list[KeyPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power may fail too: each file is synced before its rename, its directory right after."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        events.append(("sync", Path(f"/proc/self/fd/{descriptor}").readlink().name))
        fsync(descriptor)

    def note_replace(source: Path, target: Path) -> Path:
        events.append((source.name, Path(target).name))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    save_pair(state, pairs[1])
    assert events == [
        ("sync", ".swarm-node.crt.new"),
        (".swarm-node.crt.new", ".swarm-node.crt"),
        ("sync", "certificates"),
        ("sync", "swarm-node.key.new"),
        ("swarm-node.key.new", "swarm-node.key"),
        ("sync", "certificates"),
        (".swarm-node.crt", "swarm-node.crt"),
        ("sync", "certificates"),
    ]


def test_a_refused_fsync_is_an_error_and_the_old_pair_stays(
    state: Path, pairs: list[KeyPair], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that will not sync is StorageFailed by name, and the old pair still loads."""

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(StorageFailed, match=r"cannot write .*No space left on device"):
            save_pair(state, pairs[1])
    assert load(state).pair == pairs[0]


# --- the machine ----------------------------------------------------------------------------------

ALPHA, BETA = Machine("machine-id:aaaa", "alpha"), Machine("machine-id:bbbb", "beta")


def test_a_copied_state_directory_is_refused_with_both_named(state: Path) -> None:
    """Another machine id: both hosts are in the text, and the binding stays as it was."""
    assert bind_machine(state, ALPHA) is Binding.FIRST
    assert bind_machine(state, ALPHA) is Binding.SAME
    with pytest.raises(
        CopiedState, match=r"belongs to host alpha \(machine aaaa\).*host beta \(machine bbbb\)"
    ):
        bind_machine(state, BETA)
    assert bind_machine(state, ALPHA) is Binding.SAME


def test_an_accepted_move_binds_to_the_new_machine(state: Path) -> None:
    """Accepting once is enough here, and makes the old host the stranger."""
    bind_machine(state, ALPHA)
    assert bind_machine(state, BETA, accept_moved_state=True) is Binding.MOVED
    assert bind_machine(state, BETA) is Binding.SAME
    with pytest.raises(CopiedState, match="belongs to host beta"):
        bind_machine(state, ALPHA)


def test_renamed_hosts_and_moved_directories_are_legal(state: Path) -> None:
    """The machine decides, not its name nor the directory's; texts use the newest name."""
    bind_machine(state, ALPHA)
    moved = state.rename(state.with_name("moved"))
    assert bind_machine(moved, Machine(ALPHA.id_hash, "omega")) is Binding.SAME
    with pytest.raises(CopiedState, match="host omega"):
        bind_machine(moved, BETA)


@pytest.mark.parametrize(
    "unproven", [Machine(None, "gamma"), Machine("product-uuid:cccc", "gamma")]
)
def test_a_machine_without_a_comparable_id_proves_nothing(state: Path, unproven: Machine) -> None:
    """No id, or one of another kind: let in and said so."""
    bind_machine(state, ALPHA)
    assert bind_machine(state, unproven) is Binding.UNPROVEN


def test_a_known_id_outlasts_an_unknown_one(state: Path) -> None:
    """A visit without an id does not open the door to every later copy."""
    bind_machine(state, Machine(None, "early"))
    assert bind_machine(state, ALPHA) is Binding.UNPROVEN  # and bound to alpha from here
    bind_machine(state, Machine(None, "gamma"))
    with pytest.raises(CopiedState, match="host alpha"):
        bind_machine(state, BETA)


@pytest.mark.parametrize("content", ["", "[]", "null", '{"machine": "x"}', "\x00"])
def test_a_damaged_binding_is_refused_with_the_remedy(state: Path, content: str) -> None:
    """machine.json that says nothing is an error, not a free pass."""
    (state / "machine.json").write_text(content)
    with pytest.raises(IdentityBroken, match=r"machine\.json is damaged; remove it if"):
        bind_machine(state, ALPHA)


def test_the_machine_is_known_by_a_one_way_name(tmp_path: Path) -> None:
    """/etc/machine-id, else dbus's, else the firmware's; never the raw id, never an unset one."""
    assert this_machine(tmp_path).id_hash is None
    places = ("sys/class/dmi/id/product_uuid", "var/lib/dbus/machine-id", "etc/machine-id")
    found = []
    for number, place in enumerate(places):
        (tmp_path / place).parent.mkdir(parents=True)
        raw = f"{number}" * 32
        (tmp_path / place).write_text(raw.upper() + "\n")
        found.append(this_machine(tmp_path).id_hash or "")
        assert raw not in found[-1]
    assert [one.split(":")[0] for one in found] == ["product-uuid", "machine-id", "machine-id"]
    assert len(set(found)) == 3
    assert this_machine(tmp_path) == this_machine(tmp_path)
    for unset in ("uninitialized\n", "", "\n"):
        (tmp_path / "etc/machine-id").write_text(unset)
        assert this_machine(tmp_path).id_hash == found[1]


def test_this_machine_has_a_name() -> None:
    """Reading the real machine never fails, whatever files it has."""
    assert this_machine().hostname
