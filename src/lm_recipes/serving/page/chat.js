// A conversation (or, with a model that knows no chats, a text that goes on): streamed, stoppable, with what was likely.

import { $, ask, bars, element, models } from "./shared.js";

const CUTS = { nucleus: ["p", 0.9, "top_p"], top_k: ["k", 50, "top_k"], min_p: ["p", 0.05, "min_p"] };
const HOW = "Write, and press Enter (Shift+Enter: a new line)";
const turns = []; // { role, content, box }: what was said, and where it stands on the page
let known = {};
let running = null;

async function begin() {
  try {
    known = await models(begin);
    chooseModel();
    working(false);
  } catch (error) {
    $("error").textContent = error.message;
  }
}

function chooseModel() {
  const model = known[$("model").value];
  document.title = $("title").textContent = model.id;
  $("system-label").hidden = !model.chat;
  $("tokens").max = model.max_tokens;
  $("tokens").value = Math.min($("tokens").value, model.max_tokens, Math.floor(model.context / 2));
  $("text").placeholder = model.chat ? HOW : "Begin a text; the model goes on";
}

function chooseStrategy() {
  const cut = CUTS[$("strategy").value];
  $("cut-label").hidden = !cut;
  $("temperature-label").hidden = $("strategy").value === "greedy";
  if (cut) [$("cut-name").textContent, $("cut").value] = cut;
}

function request(model) {
  const asked = { model: model.id, stream: true, max_tokens: Number($("tokens").value) };
  const strategy = $("strategy").value;
  asked.temperature = strategy === "greedy" ? 0 : Number($("temperature").value);
  if (CUTS[strategy]) asked[CUTS[strategy][2]] = Number($("cut").value);
  if ($("seed").value !== "") asked.seed = Number($("seed").value);
  if (!model.chat) return { ...asked, prompt: turns.map((turn) => turn.content).join(""), logprobs: 8 };
  const system = $("system").value.trim();
  const messages = [...(system ? [{ role: "system", content: system }] : []), ...turns.map(({ role, content }) => ({ role, content }))];
  return { ...asked, messages, logprobs: true, top_logprobs: 8 };
}

/** The tokens of a chunk: [text, probability, [[text, probability], ...]] each, in chat's form or the older one. */
function tokensOf(choice) {
  const log = choice.logprobs;
  if (log?.content) return log.content.map((t) => [t.token, Math.exp(t.logprob), t.top_logprobs.map((o) => [o.token, Math.exp(o.logprob)])]);
  return (log?.tokens ?? []).map((text, i) => [
    text, Math.exp(log.token_logprobs[i]), Object.entries(log.top_logprobs[i]).map(([other, value]) => [other, Math.exp(value)]),
  ]);
}

async function send(event) {
  event?.preventDefault();
  const typed = $("text").value;
  const model = known[$("model").value];
  if (running || !model || !typed.trim()) return;
  const asked = { role: "user", content: typed, box: element("div", "turn user", typed) };
  const answer = { role: "assistant", content: "", box: element("div", "turn assistant") };
  turns.push(asked);
  $("turns").append(asked.box, answer.box);
  $("text").value = "";
  answer.box.scrollIntoView({ block: "end" });
  running = new AbortController();
  working(true);
  try {
    await hear(await started(model), answer);
    if (!answer.content) $("error").textContent = "the model had nothing to say to that";
  } catch (error) {
    if (error.name !== "AbortError") $("error").textContent = error.message;
  }
  running = null;
  working(false);
  if (!turns.includes(asked)) return; // a new conversation began meanwhile
  if (answer.content) turns.push(answer);
  else {
    turns.pop();
    asked.box.remove();
    answer.box.remove();
    $("text").value = typed;
  }
}

/** The answer as a stream. Of a conversation that has become too long the oldest exchanges are forgotten. */
async function started(model) {
  for (;;) {
    try {
      return await ask(model.chat ? "/v1/chat/completions" : "/v1/completions", request(model), running.signal);
    } catch (error) {
      if (error.code !== "context_length_exceeded" || turns.length < 3) throw error;
      for (const turn of turns.splice(0, 2)) {
        turn.box.classList.add("forgotten");
        turn.box.title = "Forgotten: it no longer fits the model's context";
      }
    }
  }
}

/** Show an answer as it comes. */
async function hear(response, answer) {
  const began = performance.now();
  let count = 0;
  for await (const chunk of chunks(response.body)) {
    if (chunk.error) throw new Error(chunk.error.message);
    const [choice] = chunk.choices;
    const text = choice.delta ? choice.delta.content ?? "" : choice.text;
    const tokens = tokensOf(choice);
    count += tokens.length;
    answer.content += text;
    const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
    if (text || tokens.length) show(answer.box, text, tokens);
    if (atEnd) scrollTo(0, document.documentElement.scrollHeight);
    const seconds = Math.max((performance.now() - began) / 1000, 0.001);
    $("status").textContent = `${count} tokens, ${(count / seconds).toFixed(0)} a second`;
  }
}

/** The JSON of each server-sent event, until [DONE]. */
async function* chunks(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

/** Append what came. A character of several tokens comes with its last one, and shows what was likely at its first. */
function show(said, text, tokens) {
  if (tokens.length > 1 && tokens.map((token) => token[0]).join("") === text) {
    for (const token of tokens) show(said, token[0], [token]);
    return;
  }
  const span = element("span", "token", text);
  if (tokens.length) {
    const [chosen, probability, likeliest] = tokens[0];
    const rows = likeliest.some(([other]) => other === chosen) ? likeliest : [...likeliest, [chosen, probability]];
    span.tabIndex = 0;
    span.onmouseenter = span.onfocus = () => showLikely(span, rows, chosen);
    span.onmouseleave = span.onblur = () => { $("likely").hidden = true; };
  }
  said.append(span);
}

function showLikely(span, rows, chosen) {
  const shown = rows.map(([text, probability]) => [JSON.stringify(text).slice(1, -1).replaceAll(" ", "\u00b7"), probability]);
  const name = JSON.stringify(chosen).slice(1, -1).replaceAll(" ", "\u00b7");
  $("likely").replaceChildren(element("small", "", "The model's own probabilities, before temperature and cuts"), bars(shown, name));
  $("likely").hidden = false;
  const box = span.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = $("likely");
  const top = box.bottom + 6 + height < innerHeight ? box.bottom + 6 : Math.max(8, box.top - 6 - height);
  $("likely").style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 24)) + scrollX}px`;
  $("likely").style.top = `${top + scrollY}px`;
}

function working(on) {
  $("send").disabled = on;
  $("stop").disabled = !on;
  if (on) [$("error").textContent, $("status").textContent] = ["", "waiting"];
}

function reset() {
  running?.abort();
  turns.length = 0;
  $("turns").replaceChildren();
  $("text").focus();
  $("likely").hidden = true;
  [$("error").textContent, $("status").textContent] = ["", ""];
}

$("form").onsubmit = send;
$("text").onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event); };
$("stop").onclick = () => running?.abort();
$("reset").onclick = reset;
$("model").onchange = () => { chooseModel(); reset(); };
$("strategy").onchange = chooseStrategy;
chooseStrategy();
begin();
