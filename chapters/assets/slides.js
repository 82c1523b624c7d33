// A deck: letters as large as their slide allows, and then reveal.js.
const LARGEST = 34, SMALLEST = 20; // pixels, of 720 a slide
const LEAST = 0.75; // of that, for a formula that is long
const PICTURE = 300; // pixels below which a picture shows nothing
const CAPTION = 28; // letters beside panels, of which a caption's are a part

const wide = (box) => box.scrollWidth > box.clientWidth + 1;
const formulas = (slide) => slide.querySelectorAll("div.math mjx-container[display]");

// The share of a displayed formula for which there is room beside its number.
function share(formula) {
  const inner = formula.querySelector("mjx-math, svg");
  return Math.min(1, formula.clientWidth / inner.getBoundingClientRect().width);
}

// Whether something on a slide is cut off, or a picture has no room.
function crowded(slide) {
  const body = slide.querySelector(".body");
  if (body.scrollHeight > body.clientHeight + 1 || wide(body)) return true;
  if ([...body.querySelectorAll("pre, table")].some((box) => wide(box) || wide(box.parentElement))) return true;
  if ([...formulas(body)].some((formula) => share(formula) < 1)) return true;
  return [...body.querySelectorAll("figure img")].some((image) => image.clientHeight < PICTURE);
}

// One long formula becomes a little smaller by itself; then everything on the slide does.
function fit(slide) {
  for (let size = LARGEST; size >= SMALLEST; size--) {
    slide.style.fontSize = size + "px";
    for (const formula of formulas(slide)) {
      formula.parentElement.style.fontSize = "";
      const room = share(formula);
      if (room < 1) formula.parentElement.style.fontSize = Math.max(0.98 * room, LEAST) + "em";
    }
    if (!crowded(slide)) return;
  }
}

// A caption stands below its picture or beside it, wherever the picture is larger.
function size(image) {
  return Math.min(image.clientWidth / image.naturalWidth, image.clientHeight / image.naturalHeight);
}

// A part of a picture: some of its bands, each a window behind which the whole picture lies.
function panel(image, bands) {
  const part = document.createElement("div");
  for (const [top, bottom] of bands) {
    const whole = image.cloneNode();
    whole.style.top = `${(-100 * top) / (bottom - top)}%`;
    part.appendChild(document.createElement("div")).append(whole);
    part.lastChild.style.aspectRatio = image.naturalWidth / ((bottom - top) * image.naturalHeight);
  }
  for (const whole of [...part.querySelectorAll("img")].slice(1)) whole.alt = "";
  return part;
}

// What a caption calls a panel that stands elsewhere on a slide.
const PLACES = {
  2: { above: "left", top: "left", below: "right", bottom: "right", lower: "right" },
  3: { above: "top left", top: "top left", middle: "top right", below: "bottom left", bottom: "bottom left" },
};
const PLACE = /\b(?:(above|middle|below)(?=\s*[:),])|(top|bottom)\b|(lower)(?= panel\b))/gi;

function rename(caption, count) {
  if (!caption) return;
  const texts = document.createTreeWalker(caption, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    texts.currentNode.data = texts.currentNode.data.replace(PLACE, (word) => {
      const name = PLACES[count]?.[word.toLowerCase()] ?? word;
      return word[0] === word[0].toUpperCase() ? name[0].toUpperCase() + name.slice(1) : name;
    });
  }
}

// Panels that stand in one column on the page, side by side. Returns how large they can be.
function spread(slide, figure, image) {
  const panels = document.createElement("div");
  panels.className = "panels";
  panels.append(...JSON.parse(image.dataset.panels).map((bands) => panel(image, bands)));
  image.replaceWith(panels);
  const caption = figure.querySelector("figcaption");
  // The caption fills a place that the panels leave.
  if (caption && panels.childElementCount % 2) panels.append(caption);
  for (let share = 1; share > 0.4; share -= 0.02) {
    panels.style.width = 100 * share + "%";
    slide.style.fontSize = CAPTION + "px";
    if (crowded(slide)) continue;
    fit(slide);
    return panels.firstChild.clientWidth / image.naturalWidth;
  }
  return 0;
}

function gather(figure, image) {
  const caption = figure.querySelector("figcaption");
  figure.querySelector(".panels").replaceWith(image);
  if (caption) figure.append(caption);
}

function arrange(slide) {
  const image = slide.querySelector(".body > figure img");
  if (!image) return;
  const figure = image.closest("figure");
  const sizes = [false, true].map((beside) => {
    figure.classList.toggle("beside", beside);
    fit(slide);
    return crowded(slide) ? 0 : size(image);
  });
  figure.classList.remove("beside");
  if (image.dataset.panels) {
    if (spread(slide, figure, image) > 1.02 * Math.max(...sizes)) {
      rename(figure.querySelector("figcaption"), image.dataset.axes);
      return;
    }
    gather(figure, image);
  }
  figure.classList.toggle("beside", sizes[1] > sizes[0]);
  fit(slide);
}

addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  await document.fonts.ready;
  for (const slide of document.querySelectorAll(".slides > section")) {
    fit(slide);
    arrange(slide);
    slide.dataset.crowded = crowded(slide);
  }
  const printed = location.search.includes("print-pdf") && new Promise((done) => Reveal.on("pdf-ready", done));
  await Reveal.initialize({
    width: 1280,
    height: 720,
    margin: 0,
    center: false,
    scrollActivationWidth: null, // slides on a phone as well
    hash: true,
    slideNumber: "c/t",
    transition: "none",
    backgroundTransition: "none",
    pdfMaxPagesPerSlide: 1,
    // The keys belong to a form while it is used.
    keyboardCondition: () => !document.activeElement?.closest("form"),
  });
  await printed;
  document.documentElement.dataset.ready = "yes";
});
