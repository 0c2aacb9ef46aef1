"""An interrupted command goes on where it was, unless the code has changed."""

from pathlib import Path

from splitplace.experiments.figures import Run
from splitplace.experiments.plan import Case, Experiment
from splitplace.experiments.running import (
    RunCache,
    SimulationRequest,
    TrainedPolicies,
    TrainingRun,
    requests_of,
)
from splitplace.experiments.unfinished import FOLDER, UnfinishedRuns, fingerprint, unfinished_runs
from splitplace.simulator import Learnt

EXPERIMENT = Experiment(
    name="small", title="Small", question="?", policies=("rule", "mab"), metrics=("reward",), cases=(Case(),)
)


class InterruptionError(Exception):
    """Somebody pressed Ctrl-C."""


class Simulator:
    """Counts what is simulated, and is interrupted after some simulations."""

    def __init__(self, most: int = 1000) -> None:
        self.trainings = 0
        self.simulations = 0
        self._most = most

    def train(self, training: TrainingRun) -> TrainedPolicies:
        """Stand for a training."""
        self.trainings += 1
        return TrainedPolicies(Learnt({"q": training.seed}, {}), {"epsilon": [1.0, 0.5]})

    def simulate(self, request: SimulationRequest, trained: TrainedPolicies | None) -> Run:
        """Stand for a simulation that depends on the training."""
        if self.simulations == self._most:
            raise InterruptionError
        self.simulations += 1
        assert request.training is not None
        assert trained is not None
        return Run({"reward": float(str(trained.learnt.splitter["q"]))}, {"tenth": [float("nan"), 1.0]})


def rewards(simulator: Simulator, kept: UnfinishedRuns) -> list[float]:
    requests = requests_of(EXPERIMENT, {"training_intervals": 5}, seeds=3, first_seed=0)
    cache = RunCache(simulator.train, simulator.simulate, kept=kept)
    cache.run([each for by_seed in requests.values() for each in by_seed.values()], lambda: None)
    runs = cache.runs(requests).by_seed.values()
    return [run.figures["reward"] for by_seed in runs for run in by_seed.values()]


def test_what_was_done_before_an_interruption_is_not_done_again(tmp_path: Path) -> None:
    kept = unfinished_runs(tmp_path)
    interrupted = Simulator(most=4)
    try:
        rewards(interrupted, kept)
    except InterruptionError:
        pass
    else:
        raise AssertionError("it was not interrupted")
    again = Simulator()
    assert rewards(again, unfinished_runs(tmp_path)) == [0.0, 1.0, 2.0] * 2
    assert (again.trainings, again.simulations) == (0, 2)
    kept.forget()
    assert not (tmp_path / FOLDER).exists()


def test_other_source_code_begins_anew(tmp_path: Path) -> None:
    rewards(Simulator(), UnfinishedRuns(tmp_path, "one commit"))
    another = Simulator()
    rewards(another, UnfinishedRuns(tmp_path, "another commit"))
    assert (another.trainings, another.simulations) == (6, 6)


def test_a_file_that_was_cut_off_is_not_believed(tmp_path: Path) -> None:
    kept = UnfinishedRuns(tmp_path, "one commit")
    rewards(Simulator(), kept)
    for path in (tmp_path / FOLDER).iterdir():
        path.write_text(path.read_text(encoding="utf-8")[:-5], encoding="utf-8")
    again = Simulator()
    rewards(again, kept)
    assert (again.trainings, again.simulations) == (6, 6)


def test_the_fingerprint_follows_names_and_contents_of_the_files_that_count(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1", encoding="utf-8")
    before = fingerprint([tmp_path], {".py"})
    (tmp_path / "note.txt").write_text("1", encoding="utf-8")
    assert fingerprint([tmp_path], {".py"}) == before
    (tmp_path / "a.py").write_text("2", encoding="utf-8")
    changed = fingerprint([tmp_path], {".py"})
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, fingerprint([tmp_path], {".py"})}) == 3
