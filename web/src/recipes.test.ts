import { expect, it } from "vitest";

import { learnDefaults, recipes, shortSpec } from "./recipes";

learnDefaults({
  components: { schemas: { QuantizeSpec: { properties: { seed: { default: 0 }, sensitivity: { default: "output" } } } } },
});

const spec = {
  budget: { size: 0.2, max_drop: { metric: "drop", limit: 0.005 } },
  weight_bits: [4, 8, 32],
  rules: [{ match: "it's", pin: 8, exclude: false, min_bits: null }],
  seed: 0,
  sensitivity: "output",
};

it("leaves out what is the default anyway", () => {
  expect(shortSpec(spec)).toEqual({
    size: 0.2,
    max_drop: "0.5%",
    weight_bits: [4, 8, 32],
    rules: [{ match: "it's", pin: 8 }],
  });
});

it("quotes for the shell", () => {
  const texts = recipes(spec, { model: "my net.onnx", data: "d.npz" }, "http://host/", 1234);
  expect(texts["Command line"]).toBe(
    [
      "bitwright quantize 'my net.onnx' --data 'd.npz'",
      "--size 1234",
      "--max-drop '0.5%'",
      `--pin 'it'\\''s=8'`,
      "--bits 4,8,float",
      "--out out",
    ].join(" \\\n  "),
  );
  expect(texts["curl"]).toContain(`-F model=@'my net.onnx'`);
  expect(texts["Python"]).toContain('client.quantize("my net.onnx", "d.npz", size=1234, max_drop="0.5%"');
});
