"""What befalls machines: their processes, their disks, their clocks, their copies."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

from ledger import NodeRole
from ledger.errors import StoreFull
from ledger.store import restore_store
from simulations.acts import act
from simulations.machines import EPOCH_MS, Machine
from simulations.world import Finding, World

__all__ = ["FAILURES", "restart", "some_machine"]

PAUSE_MS = (1_000, 3_600_000)
YEAR_MS = 365 * 86_400_000
STATEMENTS_MAX = 40
"""SQL statements of one append are some thirty: a process is killed at one of them."""
SLOW_MS = (200, 3_000)


def some_machine(
    world: World, random: Random, *, up: bool | None = True, role: NodeRole | None = None
) -> Machine | None:
    """A machine that can be befallen by something; None: there is none."""
    among = [
        m for _, m in sorted(world.machines.items())
        if (up is None or m.up is up) and (role is None or m.role is role) and not m.broken
    ]  # fmt: skip
    return random.choice(among) if among else None


def restart(world: World, machine: Machine) -> None:
    """End a machine's process as it should end, and start it again."""
    world.remember(machine)
    machine.stop()
    world.network.forget(machine.name)
    world.start(machine)


def _kill(world: World, random: Random) -> None:
    """P1: kill -9 between two things; it comes back after a while."""
    machine = some_machine(world, random)
    if machine is None:
        return
    world.kill(machine)
    world.hits["P1 kill -9"] += 1
    world.tell(machine.name, "kill", "dead")
    _come_back(world, machine, random)


def _power_cut(world: World, random: Random) -> None:
    """D3: the power fails; what was not synced is lost, torn or rubbish."""
    machine = some_machine(world, random)
    if machine is None:
        return
    world.kill(machine, random)
    world.hits["D3 power cut"] += 1
    world.tell(machine.name, "power-cut", "dark")
    _come_back(world, machine, random)


def _come_back(world: World, machine: Machine, random: Random) -> None:
    def back(w: World) -> None:
        if w.machines.get(machine.name) is machine and not machine.up:
            w.start(machine)

    world.later(random.choice([1_000, 60_000, 3_600_000]), back)


def _kill_in_write(world: World, random: Random) -> None:
    """D1: killed at some SQL statement of an act; what the files are then is what is found."""
    machine = some_machine(world, random, role=random.choice([NodeRole.PHARMACY, NodeRole.PRESCRIBER]))
    if machine is None or machine.ledger is None:
        return
    left = random.randint(1, STATEMENTS_MAX)

    def die(_statement: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            # From here on nothing reaches the disk: the copy is taken at once.
            machine.freeze()

    connection = machine.ledger.node.store._c._db  # type: ignore[attr-defined]
    connection.set_trace_callback(die)
    before = len(world.acknowledged)
    act(world, "prescribe" if machine.role is NodeRole.PRESCRIBER else "dispense", random)
    if machine.up:
        connection.set_trace_callback(None)
    if machine.frozen:
        # Nobody was told: the process died before it could say anything.
        del world.acknowledged[before:]
        world.commands = [c for c in world.commands if c[2] in world.acknowledged]
        world.hits["D1 killed in mid-write"] += 1
        world.tell(machine.name, "kill-in-write", "dead")
        cut = random.random() < 0.5
        world.hits["D2 torn write"] += cut
        machine.kill(random if cut else None)
        world.network.forget(machine.name)
        _come_back(world, machine, random)


def _kill_in_recovery(world: World, random: Random) -> None:
    machine = some_machine(world, random)
    if machine is None:
        return
    world.kill(machine)
    if world.start(machine):
        world.kill(machine)
        world.hits["P1 killed again right after recovery"] += 1
    _come_back(world, machine, random)


def _pause(world: World, random: Random) -> None:
    """P2: SIGSTOP; it goes on with stale timers."""
    machine = some_machine(world, random)
    if machine is not None:
        world.paused[machine.name] = world.now + random.randint(*PAUSE_MS)
        world.hits["P2 paused"] += 1
        world.tell(machine.name, "pause", "stands still")


def _suspend(world: World, random: Random) -> None:
    """C4: the machine sleeps; its wall clock goes on, the time that its process measures stands still."""
    machine = some_machine(world, random)
    if machine is not None and world.paused.get(machine.name, 0) <= world.now:
        ms = random.randint(*PAUSE_MS)
        world.paused[machine.name] = world.now + ms
        machine.asleep_ms += ms
        world.network.forget(machine.name)
        world.hits["C4 suspended"] += 1
        world.tell(machine.name, "suspend", "sleeps")


def _slow_disk(world: World, random: Random) -> None:
    """D8: whatever comes in takes its time."""
    machine = some_machine(world, random)
    if machine is not None:
        machine.slow_ms = random.randint(*SLOW_MS)
        world.tell(machine.name, "slow-disk", str(machine.slow_ms))
        world.later(random.choice([60_000, 900_000]), partial(_quick, machine=machine))


def _quick(world: World, machine: Machine) -> None:
    machine.slow_ms = 0
    world.stir(machine)


def _io_error(world: World, random: Random) -> None:
    """D5: the disk fails once, in the midst of an act; the process ends, and what it had said was durable is there again."""
    machine = some_machine(world, random, role=random.choice([NodeRole.PHARMACY, NodeRole.PRESCRIBER]))
    if machine is None or machine.ledger is None:
        return
    connection = machine.ledger.node.store._c  # type: ignore[attr-defined]
    disk = _FailingDisk(connection._db, random.randint(1, STATEMENTS_MAX), undone=random.random() < 0.5)
    set_back = machine.rolled_back
    connection._db = disk
    act(world, "prescribe" if machine.role is NodeRole.PRESCRIBER else "dispense", random)
    if connection is not None:
        connection._db = disk.database
    if not disk.failed:
        return
    world.hits["D5 input/output error"] += 1
    if machine.up:
        world.kill(machine)
    # The disk lost nothing: whatever was acknowledged must be there.
    machine.rolled_back, machine.broken = set_back, ""
    world.tell(machine.name, "io-error", "down")
    _come_back(world, machine, random)


class _FailingDisk:
    """A connection whose disk fails at one statement, as SQLite would say so."""

    def __init__(self, database: Any, left: int, *, undone: bool) -> None:  # noqa: ANN401 - stands for any connection.
        self.database, self._left, self._undone, self.failed = database, left, undone, False

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.database, name)

    def execute(self, sql: str, *values: object) -> object:
        """As a connection, until the disk fails."""
        self._left -= 1
        if self._left == 0:
            self.failed = True
            if self._undone and self.database.in_transaction:
                self.database.execute("ROLLBACK")  # As SQLite does by itself on some failures.
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_IOERR, "SQLITE_IOERR"
            raise error
        return self.database.execute(sql, *values)


def _other_key(world: World, random: Random) -> None:
    """I3: the store of one node in the directory of another, whose keys do not fit; put right again afterwards."""
    machine, other = some_machine(world, random), some_machine(world, random)
    if machine is None or other is None or machine.kind == other.kind or not (machine.up and other.up):
        return
    foreign = other.disk_image()
    world.kill(machine)
    own = {
        f.name: f.read_bytes() for f in sorted(machine.directory.iterdir()) if f.name.startswith("store.db")
    }
    for name in own:
        (machine.directory / name).unlink()
    for file in sorted(foreign.iterdir()):
        if file.name.startswith("store.db"):
            (machine.directory / file.name).write_bytes(file.read_bytes())
            (machine.directory / file.name).chmod(0o600)
    world.hits["I3 store under another key"] += 1
    if machine.start((), world.settings, None):
        raise Finding(f"I3: {machine.name} opens the store of another node")
    world.tell(machine.name, "other-key", machine.broken)
    for file in sorted(machine.directory.iterdir()):
        if file.name.startswith("store.db"):
            file.unlink()
    for name, data in own.items():
        (machine.directory / name).write_bytes(data)
        (machine.directory / name).chmod(0o600)
    machine.broken = ""
    world.start(machine)


def _backup(world: World, random: Random) -> None:
    machine = some_machine(world, random)
    if machine is not None:
        world.backups[machine.name] = machine.backup()
        world.tell(machine.name, "backup", "made")


def _restore(world: World, random: Random) -> None:
    """I1: a backup is put back as the manual says; the node goes on in its next incarnation."""
    names = sorted(n for n in world.backups if n in world.machines)
    if not names:
        return
    machine = world.machines[random.choice(names)]
    world.kill(machine)
    machine.rolled_back = True
    restore_store(
        world.backups[machine.name], machine.store_file(), aside=machine.directory / f"aside-{machine.lives}"
    )
    world.hits["I1 restored from backup"] += 1
    world.tell(machine.name, "restore", "put back")
    machine.broken = ""
    world.start(machine)


def _snapshot(world: World, random: Random) -> None:
    machine = some_machine(world, random)
    if machine is not None:
        world.images[machine.name] = machine.disk_image()
        world.tell(machine.name, "snapshot", "taken")


def _roll_back(world: World, random: Random) -> None:
    """I1: a machine's whole disk is set back, tokens and all, and nobody tells it."""
    names = sorted(n for n in world.images if n in world.machines)
    if not names:
        return
    machine = world.machines[random.choice(names)]
    world.kill(machine)
    machine.roll_back(world.images[machine.name])
    world.hits["I1 disk rolled back"] += 1
    world.tell(machine.name, "roll-back", "set back")
    machine.broken = ""
    world.start(machine)


def _twin(world: World, random: Random) -> None:
    """I2: two copies of one node run at once."""
    machine = some_machine(world, random, role=NodeRole.PHARMACY)
    if machine is None or machine.name.endswith("'") or f"{machine.name}'" in world.machines:
        return
    twin = machine.image(f"{machine.name}'", random.getrandbits(30))
    world.machines[twin.name] = twin
    world.start(twin)
    world.hits["I2 two copies at once"] += 1
    world.tell(twin.name, "twin", "runs too")


def _disk_full(world: World, random: Random) -> None:
    machine = some_machine(world, random)
    if machine is not None and machine.ledger is not None:
        database = machine.ledger.node.store._c._db  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count=1")
        world.hits["D4 disk full"] += 1
        world.tell(machine.name, "disk-full", "no room")
        world.later(random.choice([60_000, 3_600_000]), partial(_room, machine=machine))


def _room(world: World, machine: Machine) -> None:
    if machine.ledger is not None:
        database = machine.ledger.node.store._c._db  # type: ignore[attr-defined]
        database.execute("PRAGMA max_page_count=1073741823")
        try:
            machine.ledger.exchange.heard_from(machine.node)
        except StoreFull as error:
            raise Finding(f"E4: {machine.name} has room again and does not write") from error
        world.stir(machine)


def _disk_room(world: World, _random: Random) -> None:
    for machine in world.machines.values():
        _room(world, machine)


def _damage(world: World, random: Random, change: Callable[[bytearray, Random], None], what: str) -> None:
    """D6: while down, the file is changed; it must open to what was there, or say what is damaged."""
    machine = some_machine(world, random)
    if machine is None:
        return
    world.kill(machine)
    file = random.choice([p for p in sorted(machine.directory.iterdir()) if p.name.startswith("store.db")])
    data = bytearray(file.read_bytes())
    if data:
        change(data, random)
        file.write_bytes(bytes(data))
        machine.damaged = True
        world.hits[f"D6 {what}"] += 1
        world.tell(machine.name, what, file.name)
    _come_back(world, machine, random)


def _flip(data: bytearray, random: Random) -> None:
    data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def _truncate(data: bytearray, random: Random) -> None:
    del data[random.choice([0, len(data) // 2, max(0, len(data) - 4096), len(data) - 1]) :]


# --- clocks ------------------------------------------------------------------------------------------------------------


def _clock(world: World, random: Random, change: Callable[[Machine], None], what: str, hit: str) -> None:
    machine = some_machine(world, random, up=None)
    if machine is not None:
        change(machine)
        world.hits[hit] += 1
        world.tell(machine.name, what, str(machine.clock.now_ms() - world.now))


def _clock_step(world: World, random: Random) -> None:
    far = random.choice([300_000, 86_400_000, 5 * YEAR_MS])
    _clock(world, random, lambda m: m.clock.step(far), "clock-step", "C1 clock ahead")


def _clock_back(world: World, random: Random) -> None:
    far = random.choice([1_000, 3_600_000, 86_400_000, EPOCH_MS])
    _clock(world, random, lambda m: m.clock.step(-far), "clock-back", "C2 clock stepped back")


def _clock_drift(world: World, random: Random) -> None:
    rate = random.choice([0.5, 0.99, 1.01, 2.0])
    _clock(world, random, lambda m: m.clock.drift(rate), "clock-drift", "C3 clock drifts")


def _clock_right(world: World, _random: Random) -> None:
    for machine in world.machines.values():
        machine.clock.right()


FAILURES: dict[str, Callable[[World, Random], None]] = {
    "kill": _kill,
    "power-cut": _power_cut,
    "kill-in-write": _kill_in_write,
    "kill-in-recovery": _kill_in_recovery,
    "pause": _pause,
    "suspend": _suspend,
    "slow-disk": _slow_disk,
    "io-error": _io_error,
    "other-key": _other_key,
    "backup": _backup,
    "restore": _restore,
    "snapshot": _snapshot,
    "roll-back": _roll_back,
    "twin": _twin,
    "clock-step": _clock_step,
    "clock-back": _clock_back,
    "clock-drift": _clock_drift,
    "clock-right": _clock_right,
    "disk-full": _disk_full,
    "disk-room": _disk_room,
    "flip-at-rest": lambda w, r: _damage(w, r, _flip, "flip-at-rest"),
    "truncate": lambda w, r: _damage(w, r, _truncate, "truncate"),
}
