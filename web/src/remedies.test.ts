import { expect, it } from "vitest";

import type { Job, Problem } from "./api/types";
import { remedySpec } from "./views/remedies";

function failed(error: Partial<Problem>): Job {
  return {
    id: "1", kind: "quantize", state: "failed", stage: null, stage_progress: 0, progress: 0, message: "",
    cancel_requested: false, attempt: 1, model: "m.onnx", data: "d.npz", spec: { budget: { size: 0.1 }, rules: [] },
    error: { code: "internal", message: "", remedy: null, ...error },
    summary: null, created: "", started: null, finished: null, links: {}, owner: "local", tags: [],
  };
}

it("takes the size that the service names", () => {
  const remedy = remedySpec(failed({ code: "infeasible_budget", where: "size", remedy: "Allow at least 86,127 bytes." }));
  expect(remedy?.spec).toEqual({ size: 86127 });
});

it("raises any other budget to a little more than what the service names", () => {
  const remedy = remedySpec(failed({ code: "infeasible_budget", where: "latency", remedy: "Raise the budget to at least 0.285 or lift pins." }));
  expect(remedy?.spec["latency"]).toBeGreaterThan(0.285);
  expect(remedy?.spec["latency"]).toBeLessThan(0.2851);
  expect(remedy?.words).toBe("Try again with 0.285 ms");
});

it("leaves out the layer that is not finite", () => {
  const remedy = remedySpec(failed({ code: "non_finite", where: "fc" }));
  expect(remedy?.spec).toEqual({ size: 0.1, rules: [{ match: "fc", exclude: true }] });
});

it("tries again where that can help, and not where it cannot", () => {
  expect(remedySpec(failed({ retryable: true }))?.spec).toEqual({ size: 0.1 });
  expect(remedySpec(failed({}))).toBeNull();
});

it("knows a budget by the path that a refused request is told of", () => {
  for (const where of ["spec.size", "spec.budget.size"]) {
    const problem = failed({ code: "infeasible_budget", where, remedy: "Allow at least 86127 bytes, fewer bits, or fewer pins." });
    expect(remedySpec(problem)?.spec).toEqual({ size: 86127 });
  }
});
