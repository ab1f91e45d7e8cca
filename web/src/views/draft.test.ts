import { expect, it } from "vitest";

import { activationsOf, draftFrom, EMPTY, pinOf, ROUNDINGS, specOf, withActivations, withPin } from "./draft";

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

it("keeps the bits of a layer and of its activations apart", () => {
  const both = withActivations(withPin([{ match: "b", pin: 8 }], "a", 4), "a", 16);
  expect(both).toEqual([{ match: "b", pin: 8 }, { match: "a", pin: 4, activation_bits: 16 }]);
  expect([pinOf(both, "a"), activationsOf(both, "a")]).toEqual([4, 16]);
  expect(withPin(both, "a", 0)).toEqual([{ match: "b", pin: 8 }, { match: "a", activation_bits: 16 }]);
  expect(withActivations(both, "a", 0)).toEqual([{ match: "b", pin: 8 }, { match: "a", pin: 4 }]);
  expect(withPin(both, "a", 32)).toEqual([{ match: "b", pin: 8 }, { match: "a", exclude: true }]);
  expect(withPin(withActivations([], "a", 32), "a", 0)).toEqual([{ match: "a", activation_bits: 32 }]);
  expect(withActivations(withActivations([], "a", 32), "a", 0)).toEqual([]);
});
