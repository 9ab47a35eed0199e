// Shows /openapi.json: operations by tag, with parameters, bodies and answers. Text only, never markup.
"use strict";

function element(name, text, className) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function section(title, value) {
  const box = document.createDocumentFragment();
  box.append(element("p", title), element("pre", JSON.stringify(value, null, 2)));
  return box;
}

function resolve(api, value) {
  return value && value.$ref
    ? value.$ref.slice(2).split("/").reduce((at, part) => at[part], api)
    : value;
}

function schemaOf(api, holder) {
  const content = resolve(api, holder)?.content ?? {};
  return resolve(api, Object.values(content)[0]?.schema);
}

function operation(api, path, method, op) {
  const box = element("details");
  const summary = element("summary");
  summary.append(element("span", method.toUpperCase(), "method"), element("code", path), ` ${op.summary}`);
  box.append(summary);
  if (op.description) box.append(element("p", op.description));
  if (op.parameters) box.append(section("Parameters", op.parameters.map((p) => resolve(api, p))));
  if (op.requestBody) box.append(section("Body", schemaOf(api, op.requestBody)));
  for (const [status, answer] of Object.entries(op.responses)) {
    box.append(element("p", `${status}: ${resolve(api, answer).description}`));
    const schema = status < "300" && schemaOf(api, answer);
    if (schema) box.append(element("pre", JSON.stringify(schema, null, 2)));
  }
  return box;
}

fetch("/openapi.json")
  .then((answer) => answer.json())
  .then((api) => {
    document.getElementById("about").textContent = api.info.description;
    const operations = document.getElementById("operations");
    for (const tag of api.tags) {
      operations.append(element("h2", tag.name), element("p", tag.description));
      for (const [path, methods] of Object.entries(api.paths))
        for (const [method, op] of Object.entries(methods))
          if (op.tags.includes(tag.name)) operations.append(operation(api, path, method, op));
    }
  });
