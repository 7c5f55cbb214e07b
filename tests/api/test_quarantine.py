from __future__ import annotations

from server.api.quarantine import ENTRIES_MAX, Quarantine

POISON, OTHER = b"p" * 16, b"o" * 16


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_one_death_proves_nothing_and_two_do() -> None:
    quarantine = Quarantine(deaths=2, period_s=600, clock=Clock())
    assert not quarantine.holds(POISON)
    quarantine.count_death([POISON, OTHER])
    assert not quarantine.holds(POISON)
    quarantine.count_death([POISON])
    assert quarantine.holds(POISON)
    assert not quarantine.holds(OTHER)


def test_deaths_are_forgotten() -> None:
    clock = Clock()
    quarantine = Quarantine(deaths=2, period_s=600, clock=clock)
    quarantine.count_death([POISON])
    clock.now_s = 600
    quarantine.count_death([POISON])
    assert not quarantine.holds(POISON), "the first was too long ago"
    clock.now_s = 1199
    quarantine.count_death([POISON])
    assert quarantine.holds(POISON)
    clock.now_s = 1799
    assert not quarantine.holds(POISON)


def test_the_oldest_go_when_there_are_too_many() -> None:
    quarantine = Quarantine(deaths=1, period_s=600, clock=Clock())
    quarantine.count_death([POISON])
    quarantine.count_death(number.to_bytes(16, "little") for number in range(ENTRIES_MAX))
    assert not quarantine.holds(POISON)
    assert quarantine.holds((0).to_bytes(16, "little"))
