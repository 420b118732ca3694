"""Time a training step with memory given back to the system, and with memory kept; prints a table.

Run: python -m benchmarks.allocator [PATCH]. Each setting has its own process, because it cannot be undone.
"""

import statistics
import subprocess
import sys
import time

STEPS, ROUNDS, CLASSES = 8, 3, 28


def seconds_per_step(patch: int, keep: bool) -> float:
    """Train the default network on random crops; returns the median of the steps after the first two."""
    import torch

    from medssl.memory import keep_freed_memory
    from medssl.methods.segmentation import Segmentation
    from medssl.networks import build_network

    if keep:
        keep_freed_memory()
    torch.manual_seed(0)
    names = [str(i) for i in range(1, CLASSES)]
    method = Segmentation(build_network("unet", 1, CLASSES, 3), names, [1] * CLASSES)
    optimizer = torch.optim.AdamW(method.parameters())
    image, label = torch.rand(1, 1, patch, patch, patch), torch.randint(0, CLASSES, (1, patch, patch, patch))
    times = []
    for step in range(STEPS):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.loss({"image": image, "label": label.to(torch.uint8), "seed": torch.tensor([step])})["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def main(patch: int) -> None:
    """Alternate both settings, each in a fresh process, and print the median of the rounds and their ratio."""
    found: dict[str, list[float]] = {"given back": [], "kept": []}
    for _ in range(ROUNDS):
        for name, times in found.items():
            command = [sys.executable, "-m", "benchmarks.allocator", str(patch), name]
            times.append(float(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    given_back, kept = (statistics.median(times) for times in found.values())
    print(f"patch {patch}^3, {CLASSES} classes, median of {ROUNDS} rounds")
    print(f"memory given back  {given_back:.2f} s a step")
    print(f"memory kept        {kept:.2f} s a step  ({given_back / kept:.2f} times faster)")


if __name__ == "__main__":
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 96
    if len(sys.argv) > 2:
        print(seconds_per_step(size, keep=sys.argv[2] == "kept"))
    else:
        main(size)
