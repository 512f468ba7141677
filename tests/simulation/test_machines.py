import pytest
import simpy

from capcsim.simulation.machines import Machine


def finish_times(cores: int, jobs: int, seconds: float, speed: float = 1.0) -> list[float]:
    env = simpy.Environment()
    machine = Machine(env, "m", cores, speed)
    ends: list[float] = []

    def job() -> simpy.events.ProcessGenerator:
        yield from machine.work(seconds)
        ends.append(env.now)

    for _ in range(jobs):
        env.process(job())
    env.run()
    assert sum(machine.busy_s) == pytest.approx(jobs * seconds / speed)
    return ends


@pytest.mark.parametrize("jobs", [1, 4, 8])
def test_enough_cores_take_the_time_of_one_job(jobs: int) -> None:
    assert finish_times(cores=8, jobs=jobs, seconds=0.25) == [0.25] * jobs


@pytest.mark.parametrize(("jobs", "cores"), [(8, 2), (7, 2), (9, 4), (5, 1)])
def test_fewer_cores_take_the_ceiling_of_jobs_over_cores(jobs: int, cores: int) -> None:
    assert max(finish_times(cores, jobs, seconds=0.25)) == 0.25 * -(-jobs // cores)


def test_a_faster_machine_takes_less_time() -> None:
    assert finish_times(cores=1, jobs=1, seconds=3.0, speed=1.5) == [2.0]


def test_cores_that_are_never_needed_cost_nothing() -> None:
    env = simpy.Environment()
    machine = Machine(env, "m", 10**12, 1.0)
    for _ in range(3):
        env.process(machine.work(2.0))
    env.run()
    env.process(machine.work(1.0))
    env.run()
    assert machine.busy_s == [3.0, 2.0, 2.0]
