import { describe, expect, it } from "vitest";

import type { Front, Sensitivity } from "./api/types";
import { fitting, nextStep, predictedError, thinned } from "./plans";

const front: Front = {
  layers: ["a", "b"],
  points: [
    { bytes: 10, predicted_loss: 5, bits: [2, 2] },
    { bytes: 14, predicted_loss: 3, bits: [4, 2] },
    { bytes: 20, predicted_loss: 1, bits: [4, 8] },
  ],
};

const table: Sensitivity = {
  method: "output",
  loss: "kl",
  samples: 8,
  layers: ["a", "b"].map((name) => ({
    name,
    weight: `${name}.w`,
    parameters: 4,
    trace: null,
    trace_stderr: null,
    sensitivity: { "2": 2, "4": 1, "8": 0.25 },
    sensitivity_stderr: { "2": 0.3, "4": 0.4, "8": 0 },
  })),
};

describe("fitting", () => {
  it("finds the largest plan within a budget", () => {
    expect([9, 10, 13, 14, 19, 20, 99].map((budget) => fitting(front.points, budget))).toEqual([-1, 0, 0, 1, 1, 2, 2]);
  });
});

describe("thinned", () => {
  it("keeps both ends and no more than it may", () => {
    const kept = thinned(1000, 7);
    expect(kept).toHaveLength(7);
    expect([kept[0], kept.at(-1)]).toEqual([0, 999]);
    expect(thinned(3, 7)).toEqual([0, 1, 2]);
  });
});

describe("predictedError", () => {
  it("adds the errors of the layers in quadrature", () => {
    expect(predictedError(front, front.points[1]!, table)).toBeCloseTo(0.5);
  });
  it("is unknown where the error of a layer is", () => {
    const point = { bytes: 1, predicted_loss: 1, bits: [3, 2] };
    expect(predictedError(front, point, table)).toBeNull();
  });
});

describe("nextStep", () => {
  it("says what more bits would save and cost", () => {
    const words = nextStep(front, { "2": 1, "4": 2, "8": 4 }, table, "a", 4);
    expect(words).toBe("8 bits would save 7.5e-1 of the loss for 2 bytes more");
    expect(nextStep(front, { "2": 1, "4": 2 }, table, "a", 4)).toBe("the most bits allowed");
  });
});
