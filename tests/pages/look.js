// Looks at the page in the frame, and writes what it finds as JSON: see test_browser.py.
const SHAPES = "path, rect, circle, ellipse, polygon";
const INTERACTIVE = "a[href], button, input, select, textarea, summary, [onclick], [role=button], [tabindex]";

function colour(text) {
  const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
  return {rgb: [red, green, blue], alpha};
}

function over(below, above, alpha) {
  return below.map((value, at) => value + alpha * (above[at] - value));
}

function luminance(rgb) {  // WCAG 2.2
  const [red, green, blue] = rgb.map(value => value / 255).map(
    value => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

function contrast(one, other) {
  const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
  return (high + 0.05) / (low + 0.05);
}

function look(frame) {
  const page = frame.contentDocument, view = frame.contentWindow, style = node => view.getComputedStyle(node);
  page.querySelectorAll("details").forEach(details => { details.open = true; });

  function opacity(node) {
    let product = 1;
    for (; node; node = node.parentElement) product *= Number(style(node).opacity);
    return product;
  }

  function behind(node) {  // what is painted under the middle of a text
    let background = [255, 255, 255];
    const ancestors = [];
    for (let at = node; at; at = at.parentElement) ancestors.unshift(at);
    for (const ancestor of ancestors) {
      const painted = colour(style(ancestor).backgroundColor);
      background = over(background, painted.rgb, painted.alpha);
    }
    if (node.ownerSVGElement) {
      const box = node.getBoundingClientRect();
      for (const shape of node.ownerSVGElement.querySelectorAll(SHAPES)) {
        const isBefore = node.compareDocumentPosition(shape) & Node.DOCUMENT_POSITION_PRECEDING;
        const fill = style(shape).fill;
        if (!isBefore || fill === "none" || shape.closest("defs, clipPath")) continue;
        const middle = new DOMPoint((box.left + box.right) / 2, (box.top + box.bottom) / 2);
        if (!shape.isPointInFill(middle.matrixTransform(shape.getScreenCTM().inverse()))) continue;
        const painted = colour(fill);
        background = over(background, painted.rgb, painted.alpha * Number(style(shape).fillOpacity) * opacity(shape));
      }
    }
    return background;
  }

  const texts = [...page.querySelectorAll("body *")].filter(node => !node.closest("style, script, title, defs")
    && [...node.childNodes].some(child => child.nodeType === Node.TEXT_NODE && child.data.trim())
    && node.getClientRects().length);
  const faint = texts.map(node => {
    const background = behind(node), own = colour(node.ownerSVGElement ? style(node).fill : style(node).color);
    const seen = over(background, own.rgb, own.alpha * opacity(node));
    return {text: node.textContent.trim().slice(0, 60), contrast: Math.round(100 * contrast(seen, background)) / 100};
  }).filter(text => text.contrast < 5);

  const width = page.documentElement.clientWidth;
  const hanging_over = [...page.querySelectorAll("body *")].filter(node => !node.ownerSVGElement
    && !node.parentElement.closest(".scroll") && node.getBoundingClientRect().right > width + 1);
  const pictures = [...page.querySelectorAll("img, svg")];
  const unnamed = pictures.filter(node => !(node.getAttribute("alt") || node.getAttribute("aria-label") || "").trim());
  const scrolled = [...page.querySelectorAll("body *")].filter(
    node => !node.ownerSVGElement && /auto|scroll/.test(style(node).overflowX));
  const interactive = [...new Set([...page.querySelectorAll(INTERACTIVE), ...scrolled])];
  const unreachable = interactive.filter(node => {
    node.focus();
    const isNamed = node.tagName === "SUMMARY" || node.hasAttribute("tabindex") || node.matches("a, button, input");
    return !isNamed || node.tabIndex < 0 || page.activeElement !== node;
  });
  const named = nodes => nodes.map(node => node.outerHTML.slice(0, 100));
  return {
    width, texts: texts.length, faint, paper: style(page.body).backgroundColor,
    hanging_over: named(hanging_over), pictures: pictures.length, unnamed: named(unnamed),
    interactive: interactive.length, unreachable: named(unreachable), scripts: page.scripts.length,
    fetched: view.performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
  };
}

const frame = document.getElementById("page");
frame.addEventListener("load", () => {
  document.getElementById("findings").textContent = JSON.stringify(look(frame));
});
