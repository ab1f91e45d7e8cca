import { expect, it } from "vitest";

import type { Job, Problem } from "./api/types";
import { remedySpec } from "./views/remedies";

function failed(error: Partial<Problem>): Job {
  return {
    id: "1", kind: "quantize", state: "failed", stage: null, stage_progress: 0, progress: 0, message: "",
    cancel_requested: false, attempt: 1, model: "m.onnx", data: "d.npz", spec: { budget: { size: 0.1 }, rules: [] },
    error: { code: "internal", message: "", remedy: null, ...error },
    summary: null, created: "", started: null, finished: null, links: {},
  };
}

it("takes the size that the service names", () => {
  const remedy = remedySpec(failed({ code: "infeasible_budget", where: "size", remedy: "Allow at least 86,127 bytes." }));
  expect(remedy?.spec).toEqual({ size: 86127 });
});

it("leaves out the layer that is not finite", () => {
  const remedy = remedySpec(failed({ code: "non_finite", where: "fc" }));
  expect(remedy?.spec).toEqual({ size: 0.1, rules: [{ match: "fc", exclude: true }] });
});

it("tries again where that can help, and not where it cannot", () => {
  expect(remedySpec(failed({ retryable: true }))?.spec).toEqual({ size: 0.1 });
  expect(remedySpec(failed({}))).toBeNull();
});
