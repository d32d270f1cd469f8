r"""Which of the processes of a run this is.

One machine: ``machine.devices = 4`` and ``machine.strategy = "ddp"``; Lightning starts the others.
Many machines: torchrun or SLURM starts all of them, one for each device, and Lightning recognises
either. With torchrun, on every machine::

    torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        --no-python crystalformer train RECIPE.toml --set machine.nodes=2 \
        --set machine.devices=4 --set machine.strategy='"ddp"'

With SLURM, a batch script asks for as many tasks per node as there are devices, and goes on where
the job was the last time::

    #SBATCH --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --requeue
    test -e runs/NAME/recipe.json && resume="--resume runs/NAME"
    srun --kill-on-bad-exit=1 crystalformer train RECIPE.toml $resume --set machine.nodes=2 \
        --set machine.devices=4 --set machine.strategy='"ddp"'

Batches of all processes make up one step of the optimiser (``training.steps``): so with more of
them, raise ``optim.peak_lr`` or lower ``optim.budget``. Data are packed by the first process, in a
folder that all of them see.
"""

import os

#: Numbers of a process and of its machine, as torchrun, SLURM and Lightning set them.
RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK")

#: How many processes there are, as torchrun and srun tell.
COUNTS = ("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def is_first() -> bool:
    """Whether this process is the first of its run; so is one that is alone."""
    return all(os.environ.get(name, "0") == "0" for name in RANKS)


def is_alone() -> bool:
    """Whether nothing says that this process is one of several."""
    return is_first() and all(os.environ.get(name, "1") == "1" for name in COUNTS)
