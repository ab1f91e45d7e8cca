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

it("writes switches, lists and files as the command line takes them", () => {
  const more = {
    budget: { latency: 2 }, descent: false, symmetric: false, activation_bits: 32, loss_weights: { "a b": 0.5 }, ties: [["q", "k"]],
    quantized_parts: "keep", latency_table: { layers: [1] }, rules: [{ match: "h*", activation_bits: 32 }, { match: "a", pin: 4, activation_bits: 16 }],
  };
  const texts = recipes(more, { model: "m.onnx", data: "d.npz" }, "http://host/");
  for (const flag of ["--no-descent", "--asymmetric", "--activation-bits float", "--loss-weight 'a b=0.5'", "--tie 'q,k'",
    "--keep-quantized", "--latency-table latency.json", "--layer-activations 'h*=float'", "--pin 'a=4' --layer-activations 'a=16'"]) expect(texts["Command line"]).toContain(flag);
  expect(texts["Python"]).toContain('latency_table=json.load(open("latency.json"))');
});

it("writes no command line where no flag says what is asked, and leaves out what is empty", () => {
  expect(recipes({ held_back: 0.3 }, { model: "m", data: "d" }, "/")["Command line"]).toBeUndefined();
  expect(recipes({ rules: [{ match: "a", min_bits: 4 }] }, { model: "m", data: "d" }, "/")["Command line"]).toBeUndefined();
  expect(shortSpec({ loss_weights: {}, ties: [], workers: null })).toEqual({});
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
  expect(texts["Python"]).toContain('client.quantize("my net.onnx", data="d.npz", size=1234, max_drop="0.5%"');
});
