"""Train with Lightning, which starts the other processes by running this program.

    torch_lightning.py save|continue FOLDER PROCESSES

"save" trains the first half and saves it; "continue" trains the second and writes its result.
"""

import sys

import lightning
import torch
from torch.utils.data import DataLoader, DistributedSampler
from torch_trainers import CLIP, HALF, OPTIONS, examples, start
from torch_training import BATCH

import adadelta.torch

verb, folder, processes = sys.argv[1:]
processes = int(processes)
training = start()


class Module(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.model = training.model

    def training_step(self, batch, index):
        inputs, targets = batch
        return (self.model(inputs) - targets).square().mean()

    def configure_optimizers(self):
        training.optimizer = adadelta.torch.Adadelta(self.parameters(), **OPTIONS)
        return training.optimizer


# Each half is one epoch, so training continues at the start of the next one.
trainer = lightning.Trainer(
    accelerator="cpu",
    devices=processes,
    strategy="ddp" if processes > 1 else "auto",
    precision="64-true",
    max_epochs=1 if verb == "save" else 2,
    gradient_clip_val=CLIP,
    default_root_dir=folder,
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    enable_model_summary=False,
)
data = examples(0 if verb == "save" else HALF)
# Lightning's own sampler would shuffle.
sampler = DistributedSampler(data, processes, trainer.global_rank, shuffle=False)
loader = DataLoader(data, batch_size=BATCH // processes, sampler=sampler)
checkpoint = f"{folder}/half.ckpt"
if verb == "save":
    trainer.fit(Module(), loader)
    trainer.save_checkpoint(checkpoint)
else:
    trainer.fit(Module(), loader, ckpt_path=checkpoint)
    torch.save(training.result(), f"{folder}/{processes}-{trainer.global_rank}.pt")
