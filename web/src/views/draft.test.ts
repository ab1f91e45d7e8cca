import { expect, it } from "vitest";

import { draftFrom, EMPTY, ROUNDINGS, specOf } from "./draft";

it("asks for nothing that is the default", () => {
  expect(specOf(EMPTY)).toEqual({ size: 0.25 });
});

it("takes every way to round to a request and back", () => {
  for (const [rounding] of ROUNDINGS) {
    const draft = { ...EMPTY, rounding, descent: rounding !== "gptq", sparse: rounding !== "nearest" };
    const spec = specOf(draft);
    expect(draftFrom({ ...spec, budget: { size: 0.25 } })).toEqual(draft);
    expect(spec["rounding"] ?? "gptq").toBe(rounding);
  }
});

it("leaves out what the rounding has no use for", () => {
  expect(specOf({ ...EMPTY, rounding: "nearest", descent: false, sparse: true })).toEqual({ size: 0.25, rounding: "nearest" });
  expect(specOf({ ...EMPTY, rounding: "adaround", descent: false, sparse: true })).toEqual({
    size: 0.25,
    rounding: "adaround",
    sparse: "auto",
  });
});
