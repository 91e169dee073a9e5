"""Prints what `hwnas describe` returns: a network's costs layer by layer, or what a space has."""

from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from hwnas.cli.show import console, in_kib, print_table

if TYPE_CHECKING:
    from hwnas.latency import Largest
    from hwnas.verbs.describe import Described, DescribedSpace, LayerCosts

_MANY_LAYERS = 60  # of a network that is also printed by part


def show_described(described: "Described | DescribedSpace") -> None:
    """Print what a network costs, or what a space has."""
    from hwnas.verbs.describe import DescribedSpace

    if isinstance(described, DescribedSpace):
        _show_space(described)
        return
    _show_layers(described)
    if len(described.layers) > _MANY_LAYERS:
        _show_parts(described)
    print(described.network)
    print(
        f"{described.parameters:,} parameters, {described.mult_adds:,} Mult-Adds, "
        f"{described.peak_activation_bytes / 2**20:.2f} MiB of activations at the most at once (fp32, one image)"
    )
    print(
        f"as a TFLite file {in_kib(described.file_bytes_fp32)} KiB in fp32, {in_kib(described.file_bytes_int8)} KiB in "
        f"int8; the arena of its activations {in_kib(described.arena_bytes_fp32)} and "
        f"{in_kib(described.arena_bytes_int8)} KiB, without a delegate; on a microcontroller the int8 file needs "
        f"{described.micro_arena_bytes:,} bytes of arena"
    )
    if described.largest is not None:
        _show_largest(described.largest)


def _show_space(described: "DescribedSpace") -> None:
    print(f"{described.space}: {', '.join(described.operations)}")
    distinct = [f"{count:,}" for count in described.distinct] + ["not counted"] * len(described.choices)
    rows = [[str(at + 1), f"{choices:,}"] for at, choices in enumerate(described.choices)]
    if described.distinct:
        rows = [[*row, count] for row, count in zip(rows, distinct, strict=False)]
    print_table(["block, stage or layer", "choices", *["distinct cells so far"] * bool(described.distinct)], rows)


def _show_layers(described: "Described") -> None:
    """Print a row for each layer, under a heading for each part of the network, and the totals."""
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=0)
    peak = described.peak_activation_bytes
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("layer", "total", overflow="fold")
    table.add_column("kind", no_wrap=True)
    table.add_column("shape", justify="right", no_wrap=True)
    table.add_column("Mult-Adds", f"{described.mult_adds:,}", justify="right", no_wrap=True)
    table.add_column("params", f"{described.parameters:,}", justify="right", no_wrap=True)
    table.add_column("KiB alive", in_kib(peak), justify="right", no_wrap=True)
    table.add_column("", "peak", no_wrap=True)
    for part, members in groupby(described.layers, key=_part):
        layers = list(members)
        if len(layers) > 1:
            table.add_row("", part, style="bold")
        for layer in layers:
            is_peak = layer.activation_bytes == peak
            name = layer.name.removeprefix(f"{part}.") if len(layers) > 1 else layer.name
            row = [str(layer.number), name, layer.operator, "x".join(map(str, layer.shape))]
            row += [f"{layer.mult_adds:,}", f"{layer.parameters:,}", in_kib(layer.activation_bytes), "peak" * is_peak]
            table.add_row(*row, end_section=layer is layers[-1], style="bold" if is_peak else None)
    console().print(table)


def _part(layer: "LayerCosts") -> str:
    """Return the part of the network that a layer belongs to: a cell, a block, the stem, ..."""
    return layer.name.partition(".")[0]


def _show_parts(described: "Described") -> None:
    """Print the sums over each part of a network."""
    rows = []
    for part, members in groupby(described.layers, key=_part):
        layers = list(members)
        mult_adds, alive = sum(layer.mult_adds for layer in layers), max(layer.activation_bytes for layer in layers)
        rows.append(
            [
                part,
                str(len(layers)),
                f"{mult_adds:,}",
                f"{mult_adds / max(described.mult_adds, 1):.1%}",
                f"{sum(layer.parameters for layer in layers):,}",
                "peak " * (alive == described.peak_activation_bytes) + in_kib(alive),
            ]
        )
    print_table(["part", "layers", "Mult-Adds", "of all", "params", "KiB alive"], rows, title="by part")


def _show_largest(largest: "Largest") -> None:
    scale = largest.scale
    time = ""
    if largest.latency_ms is not None:
        time = f", predicted {largest.latency_ms:.3f} ms ({largest.upper_ms:.3f} with the error)"
    print(
        f"N={scale.cells} F={scale.filters} resolution={scale.resolution}: the largest of {largest.scales} scales "
        f"inside the caps{time}, found in {largest.milliseconds:.0f} ms"
    )
