import type { ComponentChildren } from "preact";

import { ServiceError } from "../api/client";
import type { Problem } from "../api/types";

/** What went wrong, where, and what to do about it. */
export function ProblemBox({ error, children }: { error: unknown; children?: ComponentChildren }) {
  const problem = asProblem(error);
  return (
    <div class="problem" role="alert">
      <p class="problem-message">{problem.message}</p>
      {problem.where && (
        <p>
          Where: <code>{problem.where}</code>
        </p>
      )}
      {problem.remedy && <p>{problem.remedy}</p>}
      {problem.request_id && <p class="quiet">Request {problem.request_id}</p>}
      {children}
    </div>
  );
}

export function asProblem(error: unknown): Problem {
  if (error instanceof ServiceError) return error.problem;
  if (error && typeof error === "object" && "remedy" in error && "message" in error) return error as Problem;
  const message = error instanceof Error ? error.message : String(error);
  return { code: "page", message: `The page failed: ${message}`, remedy: "Load it again; report it if it happens again." };
}
