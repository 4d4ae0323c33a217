// The server's own description of what it can be asked, as a page.

import { $, element } from "./shared.js";

const api = await (await fetch("/openapi.json")).json();

function kind(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  const either = schema.anyOf ?? schema.oneOf;
  if (either) return either.filter((one) => one.type !== "null").map(kind).join(" or ");
  if (schema.enum ?? schema.const) return [schema.enum ?? schema.const].flat().join(" | ");
  if (schema.type === "array") return `list of ${kind(schema.items ?? {})}`;
  return schema.type ?? "anything";
}

function bounds(schema) {
  const number = schema.anyOf?.find((one) => one.type !== "null") ?? schema;
  const low = number.minimum ?? number.minItems;
  const high = number.maximum ?? number.maxItems;
  return [low === undefined ? "" : `from ${low}`, high === undefined ? "" : `to ${high}`].filter(Boolean).join(" ");
}

function fields(schema) {
  const table = element("table");
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const row = element("tr");
    const name_cell = element("td");
    name_cell.append(element("code", "", name), (schema.required ?? []).includes(name) ? " (required)" : "");
    const is = [kind(field), bounds(field), field.default === undefined ? "" : `default ${JSON.stringify(field.default)}`];
    row.append(name_cell, element("td", "", is.filter(Boolean).join("; ")), element("td", "", field.description ?? ""));
    table.append(row);
  }
  return table;
}

for (const [path, methods] of Object.entries(api.paths)) {
  for (const [method, about] of Object.entries(methods)) {
    const heading = element("h2");
    heading.append(element("code", "", `${method.toUpperCase()} ${path}`));
    $("paths").append(heading, element("p", "", (about.description ?? "").replaceAll("`", "")));
    const reference = about.requestBody?.content?.["application/json"]?.schema?.$ref;
    if (reference) $("paths").append(fields(api.components.schemas[reference.split("/").pop()]));
  }
}
