"""Random troubles of a simulated group, and what holds after them."""

from __future__ import annotations

import random

from tests.cluster._simulation import RULES, Host, Simulation, owners, up

SETTLE_S = 8.0


def assert_agreed(simulation: Simulation) -> None:
    running = {host.id for host in simulation.running}
    first = simulation.running[0].process
    assert first is not None
    for host in simulation.running:
        assert host.process is not None
        assert up(host.process) == running
        assert host.process.view == first.view
        assert host.process.ring.digest() == first.ring.digest()
        assert owners(host.process) == owners(first)


class Troubles:
    """Random events against a group; each leaves it in some state, and `mend` mends the links."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.random = simulation.random
        self.events = [
            self.kill, self.restart, self.restart_elsewhere, self.leave, self.join, self.part_in_two,
            self.cut_one_way, self.cut_one_pair, self.lose, self.mend,
        ]  # fmt: skip

    def one(self) -> None:
        self.random.choice(self.events)()
        self.simulation.run(self.random.choice([0.3, 1.0, 5.0, 12.0, 40.0]))

    def kill(self) -> None:
        if len(self.simulation.running) > 2:
            self.simulation.kill(self.random.choice(self.simulation.running))

    def restart(self) -> None:
        self._restart(self.random.choice(self.simulation.hosts), None)

    def restart_elsewhere(self) -> None:
        host = self.random.choice(self.simulation.hosts[2:])  # the first two stay where the seeds say
        self._restart(host, f"moved-{self.random.getrandbits(32)}:7070")

    def _restart(self, host: Host, address: str | None) -> None:
        self.simulation.kill(host)
        self.simulation.run(self.random.choice([0.2, 3.0, 20.0, 35.0]))
        self.simulation.start(host, address)

    def leave(self) -> None:
        if len(self.simulation.running) > 2:
            host = self.random.choice(self.simulation.running)
            self.simulation.leave(host)
            self.simulation.run(self.random.choice([0.0, 2.0]))
            self.simulation.kill(host)

    def join(self) -> None:
        if len(self.simulation.hosts) < 8:
            self.simulation.start(self.simulation.new_host())

    def part_in_two(self) -> None:
        hosts = self.simulation.hosts
        ones = self.random.sample(hosts, len(hosts) // 2)
        self.simulation.cut(ones, [host for host in hosts if host not in ones])

    def cut_one_way(self) -> None:
        one, other = self.random.sample(self.simulation.hosts, 2)
        self.simulation.cut([one], [other], one_way=True)

    def cut_one_pair(self) -> None:
        one, other = self.random.sample(self.simulation.hosts, 2)
        self.simulation.cut([one], [other])

    def lose(self) -> None:
        self.simulation.network.loss = self.random.choice([0.05, 0.3])

    def mend(self) -> None:
        self.simulation.network.cuts.clear()
        self.simulation.network.loss = 0.0


def have_troubles(seed: int) -> None:
    """Have a group go through some random ones and agree again."""
    simulation = Simulation(seed, 3 + random.Random(seed).randrange(3))
    for host in simulation.hosts:
        simulation.start(host)
    troubles = Troubles(simulation)
    for _ in range(4):
        troubles.one()
    troubles.mend()
    for host in simulation.hosts[:2]:
        if host.process is None:
            simulation.start(host)  # somebody has to be where the seeds say
    simulation.run(RULES.grace_s + SETTLE_S)
    assert_agreed(simulation)
