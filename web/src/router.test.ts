import { expect, it } from "vitest";

import { parsePlace } from "./router";

it("reads view, id and query", () => {
  const { view, id, query } = parsePlace("#/jobs/a%20b?x=y");
  expect([view, id, query.get("x")]).toEqual(["jobs", "a b", "y"]);
  expect(parsePlace("").view).toBe("jobs");
});

it("takes what is no escape as it stands", () => {
  expect(parsePlace("#/jobs/%").id).toBe("%");
  expect(parsePlace("#/jobs/50%ff").id).toBe("50%ff");
});
