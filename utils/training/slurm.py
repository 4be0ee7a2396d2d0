"""Training on a SLURM cluster: the same program, submitted, requeued and continued.

Before the time limit or a preemption SLURM sends SIGUSR2: the run saves its state and ends, and the
requeued job continues it.
"""

import dataclasses
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from utils.base.errors import UserError, run_program
from utils.training.options import TrainingOptions

ROOT = Path(__file__).resolve().parents[2]
SECONDS_TO_SAVE = 120
REQUEUES = 1000  # after the time limit; preemptions are not counted


class Job:
    """A training, which each task of a job runs."""

    def __init__(self, train: Callable[[TrainingOptions], None], options: TrainingOptions):
        self.train = train
        self.options = options

    def __call__(self) -> None:
        from submitit.helpers import TorchDistributedEnvironment

        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        try:
            run_program(lambda: self.train(self.options))
        except SystemExit as end:
            if end.code != 128 + signal.SIGUSR2:
                raise
            signal.raise_signal(signal.SIGUSR2)  # the state is saved; submitit requeues the job

    def checkpoint(self) -> Any:
        """The job after a requeue: the same, but without `--restart`."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(Job(self.train, dataclasses.replace(self.options, restart=False)))


def submit(
    train: Callable[[TrainingOptions], None],
    options: TrainingOptions,
    folder: Path,
    executor: str = "slurm",
) -> Any:
    """Submit `train(options)` to SLURM with logs in `folder`; returns submitit's job.

    What has no option (account, ...) is read from the environment: SBATCH_ACCOUNT and others.
    `executor` "local" runs the job on this machine. Raises UserError without submitit or SLURM.
    """
    try:
        import submitit
    except ImportError:
        raise UserError("--slurm needs submitit: pip install submitit") from None
    if executor == "slurm" and shutil.which("sbatch") is None:
        raise UserError("--slurm: no SLURM on this machine (no sbatch); submit from a login node")
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    submitter = submitit.AutoExecutor(folder, cluster=executor, slurm_max_num_timeout=REQUEUES)
    submitter.update_parameters(
        name="naq",
        timeout_min=options.slurm_minutes,
        nodes=options.slurm_nodes,
        gpus_per_node=options.slurm_gpus,
        tasks_per_node=max(1, options.slurm_gpus),
        cpus_per_task=options.slurm_cpus,
        slurm_signal_delay_s=SECONDS_TO_SAVE,
    )
    for name in ("slurm_partition", "slurm_constraint"):
        if getattr(options, name) is not None:
            submitter.update_parameters(**{name: getattr(options, name)})
    job = submitter.submit(Job(train, dataclasses.replace(options, slurm=False)))
    print(f"submitted job {job.job_id}; logs in {job.paths.folder}")
    return job
