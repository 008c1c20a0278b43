#!/bin/bash
#SBATCH --job-name=vl-train
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --chdir=/home/me
#SBATCH --output=/home/me/.vl/slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@300
#SBATCH --gpus-per-node=1
#SBATCH --time=1440:00
#SBATCH --requeue

# A job that is started again on other nodes goes on from the vault: nothing else is carried over.
export VAULTLAYER_GRACE="${VAULTLAYER_GRACE:-300}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"
if [ "${SLURM_RESTART_COUNT:-0}" -gt 100 ]; then
    echo "[vl] Slurm has started this job again 100 times: that is enough"
    exit 5
fi

# Slurm sends SIGTERM to this shell ahead of the time limit. It passes it on, and waits for the end.
trap 'told=1; kill -TERM "$child" 2> /dev/null' TERM
python -m vaultlayer_hf.cli run --vault s3://bucket/my-run --give-up-after 5 --walk-back 3 --backoff 1 --grace 300 -- python train.py &
child=$!
while
    told=
    wait "$child"
    code=$?
    [ -n "$told" ] # the signal has ended the wait, and not yet what is waited for
do :; done

# Behind these codes another start would end alike. Behind all others, such as 75 (told to end), 3 (the store is out of
# reach) and 137 (`vl run` itself was killed), the job goes on with its next start.
# Where `vl stop` has told it to end, it has no right to a requeue any more.
case $code in 0 | 1 | 2 | 4 | 5 | 70 | 126 | 127) ;; *)
    if [ "${SLURM_RESTART_COUNT:-0}" -lt 100 ]; then scontrol requeue "$SLURM_JOB_ID"; fi ;;
esac
exit "$code"
