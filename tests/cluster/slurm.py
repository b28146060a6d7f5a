"""Slurm on some of the machines, with munge, as Debian ships them."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from machines import Machines, until

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scontrol", "squeue", "scancel")


def missing() -> str | None:
    """Return why there cannot be Slurm here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


class Slurm:
    """A Slurm of two partitions; jobs of ``urgent`` take the nodes from those of ``batch``.

    Parameters
    ----------
    machines : Machines
        Where it runs; all that it starts ends with them.
    nodes : sequence of str
        Names of machines; the first has the controller and takes commands.
    folder : Path
        For its files; a new one.
    """

    def __init__(self, machines: Machines, nodes: Sequence[str], folder: Path) -> None:
        self._machines, self._first = machines, nodes[0]
        # munge trusts no folder that others may write to.
        folder.mkdir(mode=0o700, parents=True)
        self._conf = folder / "slurm.conf"
        self._conf.write_text(_conf(nodes, folder))
        # The kind is not looked for, since none is needed.
        (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        self._start_munge(folder)
        machines.start(self._first, ["slurmctld", "-D", "-f", str(self._conf)])
        for node in nodes:
            (folder / node).mkdir()
            machines.start(node, ["slurmd", "-D", "-N", node, "-f", str(self._conf)])
        until(lambda: self._idle() == len(nodes), 120.0, f"{nodes} are idle")

    def _start_munge(self, folder: Path) -> None:
        key, socket = folder / "munge.key", folder / "munge.socket"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {name: folder / f"munge.{name}" for name in ("pid", "log", "seed")}
        self._machines.start(
            self._first,
            [
                "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket}",
                *(f"--{name}-file={path}" for name, path in files.items()),
            ],
        )  # fmt: skip
        until(socket.exists, 60.0, "munge")

    def _idle(self) -> int:
        words = ["sinfo", "--noheader", "--Node", "--partition=batch", "--format=%t"]
        try:
            return self.run(words).split().count("idle")
        except AssertionError:
            return 0  # The controller does not answer yet.

    def run(self, words: Sequence[str], limit_s: float = 120.0, **more: str) -> str:
        """Run a command on the first machine and return what it prints."""
        return self._machines.run(self._first, words, limit_s, SLURM_CONF=str(self._conf), **more)

    def submit(self, words: Sequence[str], **more: str) -> str:
        """Submit a job and return its number."""
        return self.run(["sbatch", "--parsable", *words], **more).strip()

    def state(self, job: str) -> str:
        """Return the state of a job: PENDING, RUNNING, COMPLETED, ..."""
        return self._of(job)["JobState"]

    def restarts(self, job: str) -> int:
        """Return how often a job was queued again."""
        return int(self._of(job)["Restarts"])

    def _of(self, job: str) -> dict[str, str]:
        told = self.run(["scontrol", "--oneliner", "show", "job", job])
        return dict(word.split("=", 1) for word in told.split() if "=" in word)


def _conf(nodes: Sequence[str], folder: Path) -> str:
    return f"""\
ClusterName=machines
SlurmctldHost={nodes[0]}
AuthType=auth/munge
# A job that is queued again may start after the second time.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_interval=2,sched_min_interval=0
KillWait=5
MinJobAge=3600
ReturnToService=2
MailProg=/bin/true
NodeName={",".join(nodes)} CPUs=4 RealMemory=8000
PartitionName=batch Nodes={",".join(nodes)} Default=YES PriorityTier=1 MaxTime=60
PartitionName=urgent Nodes={",".join(nodes)} PriorityTier=2 PreemptMode=OFF MaxTime=60
"""
