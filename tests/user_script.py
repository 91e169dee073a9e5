"""What a user of the library writes: mypy --strict reads it in `make test`, and test_library.py runs it."""

import logging
import sys
from pathlib import Path

import hwnas


def main(data: str, out: str) -> None:
    """Go the main path on a pretended device; print a line a step."""
    logging.getLogger("hwnas").setLevel(logging.WARNING)
    (profiled,) = hwnas.profile(
        "pretend",
        setting="tflite-fp32-1t",
        space="mbconv",
        cells=(1,),
        filters=(4,),
        resolution=(8,),
        classes=3,
        networks=4,
    )
    error: float = profiled.error
    searched: hwnas.Searched = hwnas.search(
        out=out,
        device="pretend",
        space="mbconv",
        strategy="random",
        estimator="size",
        max_latency_ms=100.0,
        data=data,
        cells=(1,),
        filters=(4,),
        trials=3,
    )
    best: hwnas.Candidate = searched.front[0]
    print(f"{best.architecture.name}: {best.latency_ms:.3f} ms, off by {error:.1%}")
    winners: list[hwnas.TrainedWinner] = hwnas.train(out, winners=1, epochs=1)
    exported: list[hwnas.Exported] = hwnas.export(out, out=str(Path(out) / "export"), files=["model.tflite"])
    print(len(winners), exported[0].folder)
    try:
        hwnas.describe("no/such/network.toml")
    except hwnas.HwnasError as refused:
        print(refused)


if __name__ == "__main__":
    main(*sys.argv[1:])
