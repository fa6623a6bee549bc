"""Train with Accelerate, alone or as one of the processes that torchrun starts.

    torch_accelerate.py save|continue FOLDER

"save" trains the first half and saves it; "continue" trains the second and writes its result.
"""

import sys

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from torch_trainers import CLIP, HALF, examples, start
from torch_training import BATCH

verb, folder = sys.argv[1:]
training = start()
# The batch size counts all processes together.
accelerator = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(split_batches=True))
loader = DataLoader(examples(0 if verb == "save" else HALF), batch_size=BATCH)
model, optimizer, loader = accelerator.prepare(training.model, training.optimizer, loader)
if verb == "continue":
    accelerator.load_state(folder)
for inputs, targets in loader:
    optimizer.zero_grad()
    accelerator.backward((model(inputs) - targets).square().mean())
    accelerator.clip_grad_norm_(model.parameters(), CLIP)
    optimizer.step()
if verb == "save":
    accelerator.save_state(folder)
else:
    place = f"{folder}/{accelerator.num_processes}-{accelerator.process_index}.pt"
    torch.save(training.result(), place)
accelerator.end_training()
