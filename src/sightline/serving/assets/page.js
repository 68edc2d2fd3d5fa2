"use strict";
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const SIDE = 320, LEFT = 44, TOP = 12, SIZE = 250;
let picture = null, policy = null, receipt = null, known = false, worded = false;

const show = (id, visible) => $(id).classList.toggle("hidden", !visible);
const percent = (value) => (100 * value).toFixed(1) + "\u00a0%";
const say = (text) => { $("status").textContent = text; };

function headers() {
  const key = $("key").value.trim();
  const found = { "content-type": "application/json" };
  if (key) found.authorization = "Bearer " + key;
  return found;
}

async function call(path, body) {
  const options = body === undefined ? { headers: headers() }
    : { method: "POST", headers: headers(), body: JSON.stringify(body) };
  const answer = await fetch(path, options).catch(() => {
    throw new Error("The server cannot be reached. Ask again when it runs.");
  });
  let document = null;
  try { document = await answer.json(); } catch (error) { document = null; }
  if (answer.status === 401) { show("keyed", true); $("key").focus(); }
  if (!answer.ok) {
    throw new Error(document && document.error ? document.error.message
      : "The server answered with status " + answer.status + ".");
  }
  return document;
}

function draw(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

const x = (value) => LEFT + SIZE * value;
const y = (value) => TOP + SIZE * (1 - value);

function line(parent, kind, x1, y1, x2, y2) {
  return draw("line", { class: kind, x1, y1, x2, y2 }, parent);
}

function diagram(confidence, threshold) {
  const holder = $("diagram");
  holder.replaceChildren();
  const label = "Reliability diagram: confidence stated against share right" +
    (confidence === null ? "" : "; this answer at " + percent(confidence));
  const root = draw("svg", { viewBox: "0 0 " + SIDE + " " + (SIDE - 12), role: "img",
    "aria-label": label }, holder);
  for (let step = 0; step <= 4; step++) {
    const at = step / 4;
    line(root, "grid", x(at), y(0), x(at), y(1));
    line(root, "grid", x(0), y(at), x(1), y(at));
    draw("text", { x: x(at), y: y(0) + 16, "text-anchor": "middle" }, root, at);
    draw("text", { x: LEFT - 6, y: y(at) + 4, "text-anchor": "end" }, root, at);
  }
  draw("text", { x: x(0.5), y: y(0) + 34, "text-anchor": "middle" }, root, "confidence stated");
  draw("text", { x: 12, y: y(0.5), "text-anchor": "middle",
    transform: "rotate(-90 12 " + y(0.5) + ")" }, root, "share right");
  line(root, "ideal", x(0), y(0), x(1), y(1));
  for (const bin of policy.reliability) {
    if (!bin.n || bin.confidence === null || bin.accuracy === null) continue;
    if (bin.accuracy_low !== null) {
      line(root, "bar", x(bin.confidence), y(bin.accuracy_low), x(bin.confidence),
        y(bin.accuracy_high));
    }
    const dot = draw("circle", { class: "bin", cx: x(bin.confidence), cy: y(bin.accuracy), r: 4 },
      root);
    draw("title", {}, dot, percent(bin.accuracy) + " right of " + bin.n);
  }
  if (threshold !== null) line(root, "threshold", x(threshold), y(0), x(threshold), y(1));
  if (confidence !== null) {
    line(root, "here", x(confidence), y(0), x(confidence), y(1));
    draw("text", { x: Math.min(Math.max(x(confidence), 70), SIDE - 40), y: TOP - 2,
      "text-anchor": "middle" }, root, "this answer");
  }
}

function placeOf(confidence) {
  if (confidence === null) return "";
  const bin = policy.reliability.find((one) => one.n && confidence > one.low
    && confidence <= one.high);
  if (!bin || bin.accuracy === null) return "No labelled answer had a confidence near this one.";
  if (bin.n === 1) {
    return "The one labelled answer with a confidence like this one was " +
      (bin.accuracy > 0.5 ? "right." : "wrong.");
  }
  return "Of " + bin.n + " labelled answers with a confidence like this one, " +
    percent(bin.accuracy) + " were right" + (bin.accuracy_low === null ? "." :
    " (" + percent(bin.accuracy_low) + " to " + percent(bin.accuracy_high) + ").");
}

function testedOn() {
  const all = policy.labelled + " labelled answers";
  if (policy.unit === "groups") return policy.units + " groups of " + all;
  if (policy.units === policy.labelled) return all;
  return policy.units + " labelled answers, one drawn from each group (of " +
    policy.labelled + ")";
}

function showCategories() {
  show("grouped", policy !== null && policy.per_group !== null);
  if (policy === null || policy.per_group === null) return;
  const field = policy.per_group.replaceAll("_", " ");
  $("grouping").textContent = "Its " + field + " (each has a threshold of its own)";
  const names = Object.keys(policy.thresholds).sort();
  const shown = (n) => n + (policy.thresholds[n] === null ? " (nothing certified)" : "");
  $("category").replaceChildren(new Option("not said", ""),
    ...names.map((n) => new Option(shown(n), n)));
}

function showPolicy(model) {
  policy = model.policy;
  showCategories();
  show("explaining", model.explains);
  worded = model.backend === "upstream" && model.prompt_style !== null;
  const lines = worded ? [model.prompt_style.short_instruction,
    model.prompt_style.choice_instruction] : [];
  const added = [...new Set(lines)].filter(Boolean).map(quoted).join(" or, behind options, ");
  $("wording").textContent = added && "Sent behind your question, as behind those that the policy "
    + "was fitted on: " + added;
  show("wording", Boolean(added));
  show("choosing", model.backend === "local" || worded);
  $("model").textContent = "Model " + model.id + (policy ? "" :
    ". No policy: scores are raw uncertainties, not probabilities.");
  show("policy", policy !== null);
  if (policy === null) return;
  const goal = policy.risk !== null ? "at most " + percent(policy.risk) + " wrong"
    : percent(policy.coverage) + " of all answers";
  const thresholds = Object.values(policy.thresholds);
  const met = thresholds.filter((one) => one !== null).length;
  const each = policy.per_group === null ? "" : " within each of " + met + " of " +
    thresholds.length + " kinds of question, which are";
  $("promise").textContent = (policy.certified ? "Accepted answers: " + goal + each +
    (each ? " certified by themselves" : ", certified") + " with confidence " +
    percent(1 - policy.delta) + " on " + (each ? "their own of " : "")
    : "Nothing could be certified on ") + testedOn() + ". Estimator: " +
    policy.estimators.join(", ") + ".";
  diagram(null, policy.thresholds.all === undefined ? null : policy.thresholds.all);
}

function showAnswer(choice) {
  const trust = choice.trust, message = choice.message;
  const withheld = message.content === null;
  $("answer").textContent = withheld ? message.refusal : message.content || "(nothing)";
  const verdict = $("verdict");
  verdict.className = "verdict";
  verdict.textContent = "";
  if (trust.abstain !== null) {
    verdict.classList.add(trust.abstain ? "abstained" : "accepted");
    verdict.textContent = trust.abstain ? "✗ Do not rely on it." : "✓ Accepted.";
  }
  $("confidence").textContent = trust.confidence === null ? "No probability."
    : "Right with probability " + percent(trust.confidence) +
      (trust.threshold === null ? "" : "; " + percent(trust.threshold) + " is required.");
  const said = trust.reason === null ? trust.warnings : [trust.reason, ...trust.warnings];
  $("reason").textContent = [...new Set(said)].join(" · ");
  const rows = Object.entries(trust.signals).map(([name, value]) =>
    tableRow(name.replaceAll("_", " "), value.toPrecision(4)));
  $("signals").replaceChildren(...rows, ...weakTokens(choice), ...heldOptions(trust));
  showExplanation(trust.explanation);
  receipt = trust.receipt;
  show("grading", receipt !== null);
  $("graded").textContent = "";
  if (policy !== null) {
    diagram(trust.confidence, trust.threshold);
    $("place").textContent = placeOf(trust.confidence);
  }
  show("result", true);
  $("result").focus();
}

const quoted = (text) => "“" + (text || "(nothing)") + "”";
const moved = (shift) => shift.distance === null ? ""
  : "; its states move by " + shift.distance.toFixed(3);

function changeName(condition) {
  const [kind, level] = condition.split(":");
  if (kind === "translate") return "Moved by " + level + " pixels";
  if (kind === "jpeg") return "Saved again as JPEG (severity " + level + ")";
  return kind === "blank" ? "Blank picture, for comparison" : condition;
}

function priorText(prior) {
  const chances = prior.probability === null || prior.blank_probability === null ? ""
    : " The answer's probability falls from " + percent(prior.probability) + " to " +
      percent(prior.blank_probability) + " there.";
  return (prior.same ? "The model says the same without the picture: the question alone may have "
    + "given the answer." : "Without the picture it says " + quoted(prior.answer) + ": the picture "
    + "matters.") + chances.replace("falls", prior.blank_probability <= prior.probability ? "falls"
    : "rises");
}

function drawsText(draws) {
  const others = draws.others.slice(0, 4).map(([text, n]) => quoted(text) + " ×" + n).join(", ");
  return draws.agree + " of " + draws.n + " say the same" + (others ? "; also " + others : "") + ".";
}

function reason(title, ...lines) {
  const head = document.createElement("dt");
  head.textContent = title;
  const parts = lines.map((one) => {
    const part = document.createElement("dd");
    part.append(one);
    return part;
  });
  $("reasons").append(head, ...parts);
}

function markedTokens(tokens) {
  const line = document.createElement("span");
  for (const token of tokens) {
    const weak = token.probability !== null && token.probability < 0.5;
    const part = document.createElement(weak ? "mark" : "span");
    if (weak) part.className = "weak";
    part.textContent = token.text.trim() + (weak ? " (" + percent(token.probability) + ")" : "");
    line.append(part, " ");
  }
  return line;
}

function showExplanation(found) {
  $("reasons").replaceChildren();
  show("explanation", Boolean(found));
  if (!found) return;
  if (found.prior !== null) reason("Language prior", priorText(found.prior));
  if (found.draws !== null) reason("Ten samples", drawsText(found.draws));
  if (found.tokens.length) reason("Tokens (marked: less likely than not)",
    markedTokens(found.tokens));
  if (found.shifts.length) reason("Hidden drift", ...found.shifts.map((shift) =>
    changeName(shift.condition) + ": " + (shift.same ? "same answer" : "answers " +
    quoted(shift.answer)) + moved(shift) + "."));
}

function weakTokens(choice) {
  const tokens = choice.logprobs?.content ?? [];
  if (!tokens.length) return [];
  const weakest = tokens.reduce((a, b) => (b.logprob < a.logprob ? b : a));
  return [tableRow("weakest token",
    JSON.stringify(weakest.token) + " " + percent(Math.exp(weakest.logprob)))];
}

function heldOptions(trust) {
  if (trust.prediction_set === null || policy === null) return [];
  return [tableRow("options that hold the right one in " + percent(policy.sets_level) +
    " of answers", trust.prediction_set.join(", "))];
}

function tableRow(name, value) {
  const row = document.createElement("tr");
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  const cell = document.createElement("td");
  cell.className = "number";
  cell.textContent = value;
  row.append(head, cell);
  return row;
}

// The browser goes by a file's name, and the server by its bytes.
function named(url) {
  const content = url.slice(url.indexOf(",") + 1);
  const start = atob(content.slice(0, 16));
  const kind = start.startsWith("\x89PNG") ? "png" : start.startsWith("\xff\xd8\xff") ? "jpeg"
    : start.startsWith("GIF8") ? "gif" : start.slice(8) === "WEBP" ? "webp" : null;
  return kind === null ? url : "data:image/" + kind + ";base64," + content;
}

function choose(file) {
  if (!file) return;
  const held = new DataTransfer();
  held.items.add(file);
  $("file").files = held.files;
  const reader = new FileReader();
  reader.onload = () => {
    picture = named(reader.result);
    $("preview").src = picture;
    show("preview", true);
  };
  reader.readAsDataURL(file);
}

function asked() {
  const content = [{ type: "text", text: $("question").value }];
  if (picture !== null) content.unshift({ type: "image_url", image_url: { url: picture } });
  const body = { messages: [{ role: "user", content }], logprobs: true };
  const choices = $("choices").value.split(";").map((one) => one.trim()).filter(Boolean);
  if (worded) body.trust = { as_labelled: true };
  if (choices.length > 1) body.trust = { ...body.trust, choices };
  if ($("explain").checked) body.trust = { ...body.trust, explain: true };
  if ($("category").value) body.trust = { ...body.trust, category: $("category").value };
  return body;
}

async function ask() {
  $("ask").disabled = true;
  say($("explain").checked ? "Asking and explaining…" : "Asking…");
  try {
    if (!known) await start();  // how questions are worded, where a key was needed for it
    const answer = await call("/v1/chat/completions", asked());
    say("");
    showAnswer(answer.choices[0]);
  } catch (error) {
    show("result", false);
    say(error.message);
  }
  $("ask").disabled = false;
}

async function grade(correct) {
  try {
    const kept = await call("/v1/feedback", { receipt, correct });
    $("graded").textContent = "Kept. " + kept.calibration.reading;
  } catch (error) {
    $("graded").textContent = error.message;
  }
}

async function start() {
  try {
    showPolicy((await call("/v1/models")).data[0]);
    known = true;
  } catch (error) {
    $("model").textContent = error.message;
  }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); ask(); });
$("file").addEventListener("change", () => choose($("file").files[0]));
$("key").addEventListener("change", start);
$("right").addEventListener("click", () => grade(true));
$("wrong").addEventListener("click", () => grade(false));
document.addEventListener("paste", (event) => choose(event.clipboardData.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") choose(event.dataTransfer.files[0]);
  });
}
if (location.protocol.startsWith("http")) start();
