"""A real Slurm of one node, of this machine: started and stopped by a fixture."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")
PATIENCE = 60.0
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge/socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=20
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES State=UP PriorityTier=1 GraceTime=20
PartitionName=high Nodes={host} State=UP PriorityTier=10
"""


def missing() -> list[str]:
    """What has to be installed, and by whom it has to be run, for a cluster to start here."""
    lacking = [program for program in PROGRAMS if shutil.which(program) is None]
    return lacking or ([] if os.getuid() == 0 else ["root"])


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Partitions low, whose jobs are queued again where one of high needs their place."""
    munge = folder / "munge"
    for path in (munge, folder / "state", folder / "spool"):
        path.mkdir(parents=True)
        path.chmod(0o755)
    for path in [folder, *folder.parents]:  # munge wants nobody else to be able to write above it
        if path.stat().st_uid == os.getuid() and path != Path("/tmp"):
            path.chmod(0o755)
    (munge / "key").write_bytes(os.urandom(128))
    (munge / "key").chmod(0o600)
    host, ports = socket.gethostname().split(".")[0], []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    conf = folder / "slurm.conf"
    user, cpus = getpass.getuser(), os.cpu_count()
    conf.write_text(CONF.format(host=host, ports=ports, folder=folder, user=user, cpus=cpus))
    files = [f"--{name}={munge}/{name}" for name in ("socket", "pid-file", "log-file", "seed-file")]
    daemons = (
        ["munged", "--foreground", "--force", f"--key-file={munge}/key", *files],
        ["slurmctld", "-D", "-f", str(conf)],
        ["slurmd", "-D", "-N", host, "-f", str(conf)],
    )
    before, running = os.environ.get("SLURM_CONF"), list[subprocess.Popen]()
    os.environ["SLURM_CONF"] = str(conf)
    try:
        for daemon in daemons:
            with (folder / f"{daemon[0]}.out").open("wb") as output:
                running.append(subprocess.Popen(daemon, stdout=output, stderr=output))
            wait_for((munge / "socket").exists)
        wait_for(lambda: "idle" in said("sinfo"))
        yield
    finally:
        said("scancel", "--user", user)
        wait_for(lambda: not said("squeue", "--noheader").split())
        for daemon in reversed(running):
            daemon.send_signal(signal.SIGTERM)
            daemon.wait(PATIENCE)
        os.environ.pop("SLURM_CONF")
        if before is not None:
            os.environ["SLURM_CONF"] = before


def wait_for(happens) -> None:
    end = time.monotonic() + PATIENCE
    while not happens():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.1)
