// One text and what a model says of it: classes with their evidence, tags, answers, choices, missing words, neighbours.

import { $, ask, bars, element, models } from "./shared.js";

const LABELS = {
  classify: "Text", tag: "Text", answer: "Context", choose: "Answers to choose between, one a line",
  "fill-mask": "Text with [MASK]", embed: "Texts to compare, one a line",
};
let known = {};

async function begin() {
  try {
    known = await models(begin);
    chooseModel();
    $("send").disabled = false;
  } catch (error) {
    $("error").textContent = error.message;
  }
}

function chooseModel() {
  const model = known[$("model").value];
  document.title = $("title").textContent = model.id;
  $("text-name").textContent = LABELS[model.asked];
  $("question-label").hidden = !["answer", "choose"].includes(model.asked);
  $("answer").replaceChildren();
}

const lines = (text) => text.split("\n").map((line) => line.trim()).filter(Boolean);

const REQUESTS = {
  classify: (text) => ({ texts: [text] }),
  tag: (text) => ({ texts: [text] }),
  answer: (text) => ({ question: $("question").value, context: text }),
  choose: (text) => ({ question: $("question").value, choices: lines(text) }),
  "fill-mask": (text) => ({ texts: [text], top_k: 8 }),
  embed: (text) => ({ texts: lines(text) }),
};

async function send(event) {
  event?.preventDefault();
  const model = known[$("model").value];
  if (!model || $("send").disabled) return;
  const text = $("text").value;
  [$("error").textContent, $("status").textContent] = ["", "reading"];
  $("send").disabled = true;
  try {
    let answers = await answersOf(model, text);
    if (model.asked === "classify") {
      $("status").textContent = "reading it without each of its words";
      answers = await answersOf(model, text, { evidence: true });
    }
    $("status").textContent = answers.some((answer) => answer.truncated) ? `only the first ${model.context} tokens were read` : "";
  } catch (error) {
    [$("error").textContent, $("status").textContent] = [error.message, ""];
  }
  $("send").disabled = false;
}

/** Ask, and show what is answered. */
async function answersOf(model, text, more) {
  const asked = { model: model.id, ...REQUESTS[model.asked](text), ...more };
  const { answers } = await (await ask(`/${model.asked}`, asked)).json();
  $("answer").replaceChildren(...SHOWN[model.asked](answers, text));
  return answers;
}

/** The text with its pieces marked: [{start, end, colour, title}], in order. Places count characters, not UTF-16 units. */
function marked(text, pieces) {
  const box = element("div", "evidence");
  const characters = [...text];
  let at = 0;
  for (const { start, end, colour, title } of pieces) {
    box.append(characters.slice(at, start).join(""));
    const mark = element("mark", "", characters.slice(start, end).join(""));
    mark.style.backgroundColor = colour;
    mark.title = title;
    box.append(mark);
    at = end;
  }
  box.append(characters.slice(at).join(""));
  return box;
}

function colour(share) {
  const style = getComputedStyle(document.documentElement);
  return `rgba(${style.getPropertyValue(share > 0 ? "--for" : "--against")}, ${Math.min(0.75, Math.abs(share)).toFixed(3)})`;
}

function logOdds(probability) {
  const kept = Math.min(Math.max(probability, 1e-7), 1 - 1e-7);
  return Math.log(kept / (1 - kept));
}

function classified([answer], text) {
  const table = answer.probabilities;
  const parts = [];
  if (table) parts.push(bars(Object.entries(table), answer.label));
  else parts.push(element("p", "", `Score: ${answer.score.toFixed(4)}`));
  if (answer.labels) parts.unshift(element("p", "", answer.labels.length ? answer.labels.join(", ") : "none of the classes"));
  if (!answer.evidence) return parts;
  const subject = table ? answer.label ?? Object.keys(table)[0] : "score";
  const changes = answer.evidence.map((word) => word.change[subject]);
  // colours go by log odds, or nothing would stand out in a text that the model is sure of; their roots, to be seen
  const moves = table ? changes.map((change) => logOdds(table[subject]) - logOdds(table[subject] - change)) : changes;
  const largest = Math.max(...moves.map(Math.abs), 1e-9);
  const pieces = answer.evidence.map((word, i) => ({
    ...word, colour: colour(0.7 * Math.sign(moves[i]) * Math.sqrt(Math.abs(moves[i]) / largest)),
    title: table ? `${changes[i] >= 0 ? "+" : ""}${(100 * changes[i]).toFixed(1)} points` : changes[i].toFixed(4),
  }));
  const key = element("p", "soft", `Evidence for \u201c${subject}\u201d: how much each word moves it, found by reading the text without the word. `);
  key.append(element("span", "", "Blue speaks for it, orange against; the stronger the colour, the further."));
  return [...parts, key, marked(text, pieces)];
}

function tagged([answer], text) {
  const found = answer.entities ?? answer.words.filter((word) => word.tag);
  const pieces = found.map((item, i) => ({ ...item, colour: colour(i % 2 ? -0.3 : 0.3), title: `${item.tag} ${item.score?.toFixed(3) ?? ""}` }));
  const table = element("table");
  for (const item of found) {
    const row = element("tr");
    row.append(element("td", "", item.text), element("td", "", item.tag), element("td", "", item.score?.toFixed(4) ?? ""));
    table.append(row);
  }
  return [marked(text, pieces), table];
}

function answered([answer], text) {
  const best = answer.n_best.map((span) => [span.text, span.probability]);
  const parts = [element("p", "", answer.answer || "No answer in this text."), bars([...best, ["(no answer)", answer.no_answer_probability]], answer.answer || "(no answer)")];
  if (answer.start !== null) parts.push(marked(text, [{ ...answer, colour: colour(0.4), title: answer.probability.toFixed(4) }]));
  return parts;
}

function chosen([answer], text) {
  return [bars(lines(text).map((choice, i) => [choice, answer.probabilities[i]]), answer.answer)];
}

const filled = ([answer]) => answer.masks.map((mask) => bars(Object.entries(mask), Object.keys(mask)[0]));

function compared(answers, text) {
  const texts = lines(text);
  const table = element("table");
  answers.forEach((one, i) => {
    const row = element("tr");
    row.append(element("th", "", texts[i]));
    for (const other of answers) {
      const cosine = one.embedding.reduce((sum, value, at) => sum + value * other.embedding[at], 0);
      const cell = element("td", "number", cosine.toFixed(3));
      cell.style.backgroundColor = colour(0.6 * Math.max(cosine, 0));
      row.append(cell);
    }
    table.append(row);
  });
  return [element("p", "soft", "Cosine similarity of each pair."), table];
}

const SHOWN = { classify: classified, tag: tagged, answer: answered, choose: chosen, "fill-mask": filled, embed: compared };

$("form").onsubmit = send;
$("text").onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event); };
$("model").onchange = chooseModel;
begin();
