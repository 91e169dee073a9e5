"""Pictures: networks of all kinds are laid out without overlaps, figures become the same SVG every time."""

from dataclasses import replace
from itertools import combinations
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch
from matplotlib.text import Annotation
from matplotlib.transforms import Affine2D
from networks import OWN_SPACES, random_cells

from hwnas.errors import InputError
from hwnas.network.architecture import Architecture
from hwnas.network.cell import Block, Cell
from hwnas.network.kinds._blocks import InvertedResidual
from hwnas.network.kinds.cells import CellNetwork
from hwnas.network.kinds.chain import Chain
from hwnas.network.kinds.macro import MacroLayer, MacroNetwork
from hwnas.network.published import mobilenet_v2, mobilenet_v3_large, mobilenet_v3_small
from hwnas.network.scale import Scale
from hwnas.pages import cell_picture, network_picture, pictures, plain_pictures
from hwnas.pages.cell_picture import CellLayout
from hwnas.pages.pictures import Box
from hwnas.pages.winners import Outcome
from hwnas.runs.front import front_of
from hwnas.runs.trial import Candidate
from hwnas.spaces import random_parameters
from hwnas.support import plugins

CHAIN = Cell(tuple(Block(("conv_1x7_7x1", state), ("identity", state)) for state in range(1, 6)))
FLAT = Cell((Block(("separable_5x5", 0), ("max_pool_3x3", 1)),) * 5)
LOOSE = Cell((Block(("separable_5x5", 0), ("identity", 1)), Block(("avg_pool_3x3", 2), ("identity", 0))), "loose")
CELLS = [CHAIN, FLAT, LOOSE, *random_cells(40, seed=1)]


def overlap(one: Box, other: Box) -> bool:
    return (
        one.x < other.x + other.width
        and other.x < one.x + one.width
        and one.y < other.y + other.height
        and other.y < one.y + one.height
    )


def inside(box: Box, *, of: Box) -> bool:
    right, top = box.x + box.width <= of.x + of.width, box.y + box.height <= of.y + of.height
    return of.x <= box.x and of.y <= box.y and right and top


def cell_figure(cell: Cell) -> Figure:
    return cell_picture.cells_figure({"a title": cell})


def candidate(trial: int, accuracy: float, latency_ms: float, *, measured: bool = True) -> Candidate:
    architecture = CellNetwork(LOOSE, Scale(1, 4, 12, 10, 1))
    return Candidate(trial, architecture, 1.0, accuracy, latency_ms, measured, latency_ms, 0.1, 10, 10)


def test_cells_of_one_to_five_blocks_are_among_those_drawn() -> None:
    assert {len(cell.blocks) for cell in CELLS} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_no_boxes_of_a_cell_overlap_and_all_are_on_the_picture(cell: Cell) -> None:
    layout = cell_picture.layout_cell(cell)
    states = [box for box in layout.boxes if box.colour == "state"]
    for one, other in combinations([*layout.panels, *states], 2):
        assert not overlap(one, other)
    for one, other in combinations(layout.boxes, 2):
        assert not overlap(one, other)
    paper = Box("", "paper", 0, 0, layout.width, layout.height)
    assert all(inside(box, of=paper) for box in (*layout.panels, *layout.boxes))
    operations = [box for box in layout.boxes if box.colour != "state"]
    for panel in layout.panels:
        assert sum(inside(box, of=panel) for box in operations) == 2
    assert len(operations) == 2 * len(cell.blocks)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_no_connection_runs_through_a_box_or_a_foreign_block(cell: Cell) -> None:
    layout = cell_picture.layout_cell(cell)
    for edge in layout.edges:
        fine = Affine2D().scale(200)  # curves become lines of about a unit
        points = np.array(cell_picture.edge_curve(edge).to_polygons(fine, closed_only=False)[0]) / 200
        for panel in layout.panels:
            through = sum(holds(panel, x, y) for x, y in points)
            ends = holds(panel, *edge[:2]) or holds(panel, *edge[2:4])
            assert ends or not through
        for box in layout.boxes:
            assert not any(holds(box, x, y) for x, y in points)


def holds(box: Box, x: float, y: float, margin: float = 1e-6) -> bool:
    across = box.x + margin < x < box.x + box.width - margin
    return across and box.y + margin < y < box.y + box.height - margin


def test_every_branch_has_its_arrow_and_every_output_state_its_own() -> None:
    for cell in CELLS:
        layout = cell_picture.layout_cell(cell)
        assert sum(edge.arrow for edge in layout.edges) == 2 * len(cell.blocks) + len(cell.output_states)
        assert len(layout.joins) == len(layout.panels) == len(cell.blocks)


def arrivals(layout: CellLayout, label: str) -> list[float]:
    """Return from how far left the arrows to boxes of this label come."""
    (box,) = [box for box in layout.boxes if box.label == label]
    ends = [edge for edge in layout.edges if edge.arrow and holds(box, edge.to_x + 0.01, edge.to_y)]
    return [edge.x for edge in ends if edge.to_x == pytest.approx(box.x)]


def test_a_cell_without_concatenation_ends_in_its_output_and_unread_inputs_are_not_drawn() -> None:
    labels = [box.label for box in cell_picture.layout_cell(LOOSE).boxes]
    assert "output" in labels
    assert "concat" not in labels
    assert len(arrivals(cell_picture.layout_cell(LOOSE), "output")) == 1
    assert len(arrivals(cell_picture.layout_cell(CHAIN), "concat")) == 5
    assert "h[l-2]" not in [box.label for box in cell_picture.layout_cell(CHAIN).boxes]


def test_a_cell_of_more_blocks_than_anybody_looks_at_is_refused() -> None:
    block = Block(("identity", 0), ("max_pool_3x3", 1))
    cell_picture.layout_cell(Cell((block,) * 24))
    with pytest.raises(InputError, match="up to 24 blocks; got 25"):
        cell_picture.layout_cell(Cell((block,) * 25))
    with pytest.raises(InputError, match="up to 24 blocks; got 3000"):
        cell_picture.layout_cell(Cell((block,), (2,) * 3000))


def test_labels_fit_their_boxes() -> None:
    cell = Cell((Block(("conv_1x7_7x1_bottleneck", 0), ("dilated_separable_3x3", 1)),))
    figure = cell_figure(cell)
    figure.canvas.draw()
    widths = [text.get_window_extent().width / figure.dpi for text in figure.axes[0].texts]
    boxes = cell_picture.layout_cell(cell).boxes
    labelled = {box.label: box.width for box in boxes}
    for text, width in zip(figure.axes[0].texts, widths, strict=True):
        assert width < labelled.get(text.get_text(), 1)
    assert labelled.keys() <= {text.get_text() for text in figure.axes[0].texts}


def drawn_boxes(figure: Figure) -> list[Box]:
    """Return where boxes, panels and circles are, in inches."""
    found = []
    for patch in figure.axes[0].patches:
        if isinstance(patch, FancyBboxPatch):
            found.append(Box("", "", patch.get_x(), patch.get_y(), patch.get_width(), patch.get_height()))
        if isinstance(patch, Circle):
            (x, y), radius = patch.center, patch.radius
            found.append(Box("", "", x - radius, y - radius, 2 * radius, 2 * radius))
    return found


def drawn_texts(figure: Figure) -> list[Box]:
    """Return where the texts are, in inches."""
    found, renderer = [], FigureCanvasAgg(figure).get_renderer()
    for text in figure.axes[0].texts:
        x, y, width, height = (side / figure.dpi for side in text.get_window_extent(renderer).bounds)
        found.append(Box(text.get_text(), "", x, y, width, height))
    return found


def check_nothing_overlaps(figure: Figure) -> None:
    """Check that texts are apart from each other, wholly in or out of boxes, and that all is on the picture."""
    width, height = figure.get_size_inches()
    paper = Box("", "paper", 0, 0, width, height)
    texts, boxes = drawn_texts(figure), drawn_boxes(figure)
    for one, other in combinations(texts, 2):
        assert not overlap(one, other), (one, other)
    for text in texts:
        assert inside(text, of=paper), text
        assert all(inside(text, of=box) or not overlap(text, box) for box in boxes), text
    for box in boxes:
        assert inside(box, of=paper), box


def random_architectures(name: str, count: int) -> list[Architecture]:
    space = plugins.load("spaces", name)
    parameters = random_parameters(space, count, seed=5)
    return [space.architecture(chosen, Scale(1 + at % 4, 16, 32, 10)) for at, chosen in enumerate(parameters)]


@pytest.mark.parametrize("space", OWN_SPACES)
def test_networks_of_every_space_are_drawn_without_overlaps(space: str) -> None:
    for architecture in random_architectures(space, 20):
        check_nothing_overlaps(network_picture.network_figure(architecture))


LONG = Chain(16, tuple(InvertedResidual(16, 3 + at % 7, 1, 40, squeezed=8) for at in range(20)), 1280, 224, 1000, 1024)
FULL = MacroNetwork(
    tuple(MacroLayer("separable_5x5_single", tuple(range(at))) for at in range(12)), Scale(4, 8, 32, 10)
)
LARGE = [LONG, FULL, mobilenet_v2(), mobilenet_v3_large(), mobilenet_v3_small()]


@pytest.mark.parametrize("architecture", LARGE, ids=["long", "full", "v2", "v3 large", "v3 small"])
def test_large_networks_are_drawn_without_overlaps(architecture: Architecture) -> None:
    check_nothing_overlaps(network_picture.network_figure(architecture))


def test_a_reduction_cell_is_drawn_where_it_is_another_one() -> None:
    scale = Scale(1, 4, 12, 10, 1)
    for reduction, titles in ((None, 1), (CHAIN, 1), (FLAT, 2)):
        texts = [
            text.label for text in drawn_texts(network_picture.network_figure(CellNetwork(CHAIN, scale, reduction)))
        ]
        assert sum(text.endswith(" cell") for text in texts) == titles
        assert texts.count("h[l-2]") == titles - 1


def test_branches_that_are_joined_or_zero_are_shown_as_such() -> None:
    cell = Cell((Block(("separable_5x5", 0), ("zero", 1), "concat"), Block(("identity", 1), ("identity", 2))))
    layout = cell_picture.layout_cell(cell)
    assert [join.combination for join in layout.joins] == ["concat", "add"]
    assert [box.label for box in layout.boxes if box.faint] == ["zero"]
    assert sum(edge.faint for edge in layout.edges) == 2
    assert [text.label for text in drawn_texts(cell_figure(cell))].count("concat") == 2


def test_the_picture_of_a_chain_shows_every_block_and_every_addition() -> None:
    chain = mobilenet_v3_large()
    layout = network_picture.layout_chain(chain)
    labels = [box.label for box in layout.boxes]
    assert labels[:3] == ["stem\n3×3 /2", "3×3\ne1", "3×3 /2\ne4"]
    assert labels[-4:] == ["head\n1×1", "average", "hidden\n1280", "classes\n1000"]
    assert labels[9:11] == ["3×3\ne2.3", "3×3\ne2.3"]
    assert len(labels) == len(chain.blocks) + 5
    assert len(layout.pluses) == sum(layer.kind == "add" for layer in chain.graph.layers)
    heights = [box.height for box in layout.boxes]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 5


def test_the_picture_of_a_macro_network_has_an_arc_for_every_skip_and_none_run_through_boxes() -> None:
    for network in (FULL, *random_architectures("enas-macro", 5)):
        assert isinstance(network, MacroNetwork)
        layout = network_picture.layout_macro(network)
        assert len(layout.arcs) == sum(len(layer.skips) for layer in network.layers)
        for arc in layout.arcs:
            points = np.array(network_picture.arc_curve(arc).to_polygons(Affine2D().scale(200), closed_only=False)[0])
            assert points[:, 1].min() / 200 >= layout.boxes[0].y + layout.boxes[0].height - 1e-6
            assert points[:, 1].max() / 200 <= layout.height


def test_a_network_of_another_kind_has_no_picture() -> None:
    with pytest.raises(InputError, match="draws networks of cells, chains and macro networks; got a str"):
        network_picture.network_figure("a picture")  # type: ignore[arg-type]


def test_a_figure_is_the_same_svg_and_png_every_time_and_carries_no_date() -> None:
    first, second = (pictures.svg(cell_figure(FLAT)) for _ in range(2))
    assert first == second
    assert pictures.png(cell_figure(FLAT)) == pictures.png(cell_figure(FLAT))
    assert "<metadata>" not in first
    ElementTree.fromstring(first)


def test_inline_svgs_share_no_ids_and_take_their_colours_from_the_page() -> None:
    figures = {name: cell_figure(LOOSE) for name in ("a", "b")}
    texts = [pictures.inline_svg(figure, prefix=name, title='a "title"') for name, figure in figures.items()]
    ids = [{e.get("id") for e in ElementTree.fromstring(text).iter() if e.get("id")} for text in texts]
    assert not ids[0] & ids[1]
    for text in texts:
        assert text.startswith("<svg ")
        assert "a &quot;title&quot;" in text
        assert "var(--separable)" in text
        assert pictures.PALETTE["separable"][0] not in text
    assert "--separable: " + pictures.PALETTE["separable"][1] in pictures.css_variables(dark=True)


def test_references_of_an_inline_svg_lead_to_its_own_ids() -> None:
    candidates = [candidate(1, 0.8, 0.5), candidate(2, 0.7, 0.6)]
    figure = pictures.front_figure(candidates, candidates[:1], winners={1}, cap_ms=1.0, accuracy_of="")
    root = ElementTree.fromstring(pictures.inline_svg(figure, prefix="x", title=""))
    ids = [e.get("id", "") for e in root.iter() if e.get("id")]
    links = [e.get("{http://www.w3.org/1999/xlink}href", "") for e in root.iter() if e.tag.endswith("}use")]
    assert ids
    assert all(name.startswith("x-") for name in ids)
    assert len(set(ids)) == len(ids)
    assert {link.removeprefix("#") for link in links} <= set(ids)


def test_the_front_shows_the_cap_and_names_winners_and_predictions() -> None:
    candidates = [candidate(3, 0.8, 0.5), candidate(4, 0.75, 0.7), candidate(5, 0.9, 0.9, measured=False)]
    figure = pictures.front_figure(
        candidates, front_of(candidates), winners={5}, cap_ms=1.25, accuracy_of="shared weights"
    )
    axes = figure.axes[0]
    (cap,) = [line for line in axes.lines if line.get_gid() == "cap"]
    assert list(cap.get_xdata()) == [1.25, 1.25]
    assert axes.get_xlim()[1] > 1.25
    assert axes.get_xlabel() == "latency, measured or predicted (ms)"
    assert axes.get_ylabel() == "accuracy of the proxy (shared weights, %)"
    assert [text.get_text() for text in axes.texts] == ["trial 5"]
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"trained candidate", "Pareto front", "Pareto front, predicted", "winner", "cap, 1.25 ms"}


def test_winners_beside_each_other_are_named_on_different_sides() -> None:
    candidates = [candidate(1, 0.5, 0.1), candidate(2, 0.800, 0.500), candidate(3, 0.801, 0.501)]
    figure = pictures.front_figure(candidates, candidates, winners={2, 3}, cap_ms=1, accuracy_of="")
    assert [text.get_ha() for text in figure.axes[0].texts] == ["right", "left"]


OUTCOMES = [Outcome(4, 0.412, 0.934, (0.929, 0.939)), Outcome(11, 0.405, 0.921, None)]


def test_an_arrow_leads_from_what_the_search_saw_of_each_winner_to_what_it_came_to() -> None:
    axes = pictures.outcome_figure(OUTCOMES, accuracy_of="shared weights").axes[0]
    arrows = [(text.xyann, text.xy) for text in axes.texts if isinstance(text, Annotation) and text.arrow_patch]
    assert np.allclose(arrows, [((41.2, 0), (93.4, 0)), ((40.5, 1), (92.1, 1))])
    drawn = {line.get_label(): np.transpose(line.get_data()) for line in axes.lines}
    assert np.allclose(drawn["search (shared weights)"], [start for start, _ in arrows])
    assert np.allclose(drawn["long training, test set"], [end for _, end in arrows])
    assert np.allclose(drawn["95 % interval"], [(92.9, 0), (93.9, 0)])
    assert {text.get_text() for text in axes.get_legend().get_texts()} == drawn.keys()
    assert [label.get_text() for label in axes.get_yticklabels()] == ["trial 4", "trial 11"]
    top, bottom = axes.transData.transform([(0, 0), (0, 1)])[:, 1]
    assert top > bottom


def test_all_of_an_outcomes_picture_is_on_it_and_takes_its_colours_from_the_page() -> None:
    for outcomes in (OUTCOMES, OUTCOMES[1:], [replace(OUTCOMES[0], trial=trial) for trial in range(12)]):
        figure = pictures.outcome_figure(outcomes, accuracy_of="short training")
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer()), figure.get_size_inches()
        assert min(box.x0, box.y0, width - box.x1, height - box.y1) >= 0
        text = pictures.inline_svg(figure, prefix="x", title="what came of it")
        assert 'aria-label="what came of it"' in text
        assert all(f"var(--{name})" in text for name in ("point", "winner", "muted", "ink"))
        assert not any(light in text for light, _ in pictures.PALETTE.values())


def test_one_candidate_alone_can_be_drawn() -> None:
    only = [candidate(0, 0.5, 0.5)]
    pictures.svg(pictures.front_figure(only, only, winners=(), cap_ms=1, accuracy_of=""))
    pictures.svg(pictures.agreement_figure([(0.5, 0.6)], []))
    pictures.svg(plain_pictures.curves_figure({"trial 1": []}, x_label="epoch", y_label="loss"))


def test_no_setting_of_matplotlib_is_left_changed() -> None:
    before = dict(matplotlib.rcParams)
    pictures.png(cell_figure(FLAT))
    assert dict(matplotlib.rcParams) == before


def test_short_names_and_families() -> None:
    assert cell_picture.short_name("separable_5x5") == "sep 5×5"
    assert cell_picture.short_name("conv_1x7_7x1") == "conv 1×7 7×1"
    assert cell_picture.short_name("identity") == "identity"
    families = [
        cell_picture.family(name) for name in ("dilated_separable_3x3", "separable_3x3", "avg_pool_3x3", "identity")
    ]
    assert families == ["dilated", "separable", "pool", "identity"]
