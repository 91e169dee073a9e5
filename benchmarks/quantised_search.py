"""Does a winner lose less at export where its search looks at candidates in int8? Pairs of winners, with and without.

For each seed a search of `random` with `--quantised` keeps each candidate's accuracy in int8 and in fp32. Its winner is
the most accurate in int8; the most accurate in fp32 is that of the same search without, as what `random` proposes
depends on no accuracy. Both are trained for --epochs of the 60,000 images of Fashion-MNIST and exported. What a winner
loses is the accuracy on the test set as PyTorch computes it minus that of `model.int8.tflite`, in points, before and
after `export` fine-tunes those that lose more than half a point. The device is `pretend`: no latency counts here. Each
seed's figures are kept in --folder; called again, it goes on.

    python benchmarks/quantised_search.py [--quick] [--folder F] [--seeds 10] [--trials 5] [--space mobile]
        [--images 3000] [--epochs 0.1]

The last line is one JSON object: `winners`; of those `with` and `without`: `lost_points` and `lost_points_calibrated`
(before fine-tuning), each {"median", "worst"}, `accuracy_int8` (mean, of the exported files), `tuned` (how many were
fine-tuned); `same` (of the pairs, how many are one network); of all candidates `lost_points_searched` {"median",
"worst"} and `spearman` (mean over searches) of the accuracies in int8 and in fp32.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import hwnas
from hwnas.runs import Candidate, Run, spearman
from hwnas.support import read_json, write_json

SETTING, FILE = "tflite-int8-1t", "model.int8.tflite"
FILTERS = (8,)  # small networks lose most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, hardly trained: under a minute")
    parser.add_argument("--folder", type=Path, default=Path("runs/quantised_search"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=5, help="of each search")
    parser.add_argument("--space", default="mobile")
    parser.add_argument("--images", type=int, default=3000, help="of each of the two epochs of a candidate")
    parser.add_argument("--epochs", type=float, default=0.1, help="of a winner, over all images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.quick:
        options.seeds, options.trials, options.images, options.epochs = 1, 2, 200, 0.01
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if options.quick else options.folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        pairs = []
        for seed in range(options.seeds):
            pairs.append(one_seed(seed, options))
            print(json.dumps(pairs[-1]), file=sys.stderr)
        os.chdir("/")
    print(json.dumps(summary(pairs)))


def one_seed(seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return what the two winners of a seed lose, and what its candidates do; from its file, if that is done."""
    path = Path(f"{seed:02d}.json")
    if path.exists():
        return dict(read_json(path))
    out = f"runs/{seed:02d}"
    hwnas.search(
        out=out,
        max_latency_ms=1000.0,
        device="pretend",
        setting=SETTING,
        space=options.space,
        filters=FILTERS,
        strategy="random",
        fill=0.0,
        targets=(1.0,),
        trials=options.trials,
        images=options.images,
        seed=seed,
        quantised=True,
    )
    candidates = Run.open(out).candidates()
    in_int8 = max(candidates, key=lambda candidate: candidate.accuracy)
    in_fp32 = max(candidates, key=fp32_accuracy)
    figures = {
        "with": exported(out, in_int8.trial, options.epochs),
        "without": exported(out, in_fp32.trial, options.epochs),
        "candidates": [[candidate.accuracy, fp32_accuracy(candidate)] for candidate in candidates],
    }
    write_json(path, figures)
    return figures


def fp32_accuracy(candidate: Candidate) -> float:
    """Return a candidate's accuracy in fp32, which a search with `--quantised` keeps."""
    assert candidate.fp32_accuracy is not None
    return candidate.fp32_accuracy


def exported(run: str, trial: int, epochs: float) -> dict[str, Any]:
    """Train a trial, unless that is done, and export it; return what it loses."""
    (winner,) = hwnas.train(run, trial=trial, epochs=epochs, batch_size=64, augment=False)
    (artefact,) = hwnas.export(run, trial=trial, files=(FILE,), out="export")
    file = artefact.card.files[FILE]
    assert file.accuracy is not None
    tuned = file.fine_tuning
    lost = winner.test_accuracy - file.accuracy
    return {
        "trial": trial,
        "accuracy": winner.test_accuracy,
        "accuracy_int8": file.accuracy,
        "lost": lost,
        "lost_calibrated": tuned.lost_before if tuned else lost,
        "tuned": tuned is not None,
    }


def summary(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures over all pairs."""
    found: dict[str, Any] = {"winners": 2 * len(pairs)}
    for name in ("with", "without"):
        winners = [pair[name] for pair in pairs]
        found[name] = {
            "lost_points": points([winner["lost"] for winner in winners]),
            "lost_points_calibrated": points([winner["lost_calibrated"] for winner in winners]),
            "accuracy_int8": round(statistics.mean(winner["accuracy_int8"] for winner in winners), 4),
            "tuned": sum(winner["tuned"] for winner in winners),
        }
    found["same"] = sum(pair["with"]["trial"] == pair["without"]["trial"] for pair in pairs)
    accuracies = [list(zip(*pair["candidates"], strict=True)) for pair in pairs]
    lost = [fp32 - int8 for pair in pairs for int8, fp32 in pair["candidates"]]
    ranked = [rank for int8, fp32 in accuracies if (rank := spearman(int8, fp32)) is not None]
    found["lost_points_searched"] = points(lost)
    found["spearman"] = round(statistics.mean(ranked), 3) if ranked else None
    return found


def points(shares: list[float]) -> dict[str, float]:
    """Return the median and the worst of what is lost, in points."""
    return {"median": round(100 * statistics.median(shares), 2), "worst": round(100 * max(shares), 2)}


if __name__ == "__main__":
    main()
