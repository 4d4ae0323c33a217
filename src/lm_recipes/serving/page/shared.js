// What both pages need: the server with its key, its errors in one line, and bars.

export const $ = (id) => document.getElementById(id);

/** Ask the server; throws an Error with its one line. The key is kept for this tab only. */
export async function ask(path, body, signal) {
  const key = sessionStorage.getItem("key");
  const headers = { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const options = body ? { method: "POST", headers, body: JSON.stringify(body), signal } : { headers, signal };
  const response = await fetch(path, options);
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const error = new Error(told?.error?.message ?? `the server answered ${response.status}`);
  [error.status, error.code] = [response.status, told?.error?.code];
  throw error;
}

/** The server's models by name, to choose from where there are several. Where it wants a key, `again` is called with one. */
export async function models(again) {
  try {
    const found = (await (await ask("/v1/models")).json()).data;
    $("model").replaceChildren(...found.map((model) => element("option", "", model.id)));
    $("model-label").hidden = found.length < 2;
    [$("key-label").hidden, $("error").textContent] = [true, ""];
    return Object.fromEntries(found.map((model) => [model.id, model]));
  } catch (error) {
    if (error.status === 401) {
      $("key-label").hidden = false;
      $("key").onchange = () => { sessionStorage.setItem("key", $("key").value); again(); };
      error.message = "this server wants a key";
    }
    throw error;
  }
}

export function element(tag, className, text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/** Rows of name, bar and per cent. Texts are set as text, never as markup. */
export function bars(rows, chosen) {
  const grid = element("div", "bars");
  for (const [name, probability] of rows) {
    const bar = element("span", "bar");
    bar.style.setProperty("--share", `${100 * probability}%`);
    const percent = `${(100 * probability).toFixed(probability < 0.1 ? 2 : 1)} %`;
    grid.append(element("span", name === chosen ? "name chosen" : "name", name), bar, element("span", "number", percent));
  }
  return grid;
}
