import { expect, it } from "vitest";

import { LONGEST, shortName } from "./layer_names";

it.each([
  ["/layer1/layer1.0/conv1/Conv", "Conv", "layer1.0/conv1"],
  ["/fc/Gemm", "Gemm", "fc"],
  ["conv", "Conv", "conv"],
  ["/a/MatMul_3", "MatMul", "a"],
  ["/", "Conv", "/"],
  ["Conv", "Conv", "Conv"],
])("shortens %s", (name, op, short) => expect(shortName(name, op)).toBe(short));

it("keeps the end of a long name", () => {
  const short = shortName("x".repeat(80) + "end", "Conv");
  expect(short).toHaveLength(LONGEST);
  expect(short).toMatch(/^….*end$/);
});
