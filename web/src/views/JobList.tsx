import { useEffect, useState } from "preact/hooks";

import { api } from "../api/client";
import { hasEnded, type Job, type JobPage, RUNNING } from "../api/types";
import { bytes, percent } from "../numbers";
import { ProblemBox } from "../parts/ProblemBox";
import { StateBadge } from "../parts/StateBadge";
import { go, type Place } from "../router";

const PAGE = 25;
const STATES = ["queued", "running", "succeeded", "failed", "canceled", "expired"];

/** All jobs of the one who looks, newest first. */
export function JobList({ place }: { place: Place }) {
  const [page, setPage] = useState<JobPage | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [chosen, setChosen] = useState<readonly string[]>([]);
  const state = place.query.get("state") ?? "";
  const text = place.query.get("text") ?? "";
  const offset = Number(place.query.get("offset") ?? 0);
  useEffect(() => {
    const controller = new AbortController();
    let timer = 0;
    const load = async () => {
      const query = new URLSearchParams({ limit: String(PAGE), offset: String(offset) });
      for (const name of state === "running" ? RUNNING : [state]) if (name) query.append("state", name);
      try {
        const found = await api.jobs(query, controller.signal);
        setPage(found);
        setError(null);
        const busy = found.jobs.some((job) => !hasEnded(job));
        timer = window.setTimeout(load, busy ? 1500 : 6000);
      } catch (failure) {
        if (controller.signal.aborted) return;
        setError(failure);
        timer = window.setTimeout(load, 3000);
      }
    };
    void load();
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [state, offset]);
  const show = (changes: Record<string, string>) => {
    const query = new URLSearchParams(place.query);
    for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
    go(`/jobs?${query}`);
  };
  const toggle = (id: string) =>
    setChosen(chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]);
  const shown = (page?.jobs ?? []).filter((job) => matches(job, text));
  return (
    <section aria-labelledby="jobs-title">
      <div class="row">
        <h1 id="jobs-title">Jobs</h1>
        <a class="button main end" href="#/new">
          New job
        </a>
      </div>
      <div class="row filters">
        <label>
          State
          <select value={state} onChange={(event) => show({ state: event.currentTarget.value, offset: "" })}>
            <option value="">all</option>
            {STATES.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
        <label>
          Model, tag or owner
          <input type="search" value={text} onInput={(event) => show({ text: event.currentTarget.value })} />
        </label>
        <button
          type="button"
          class="end"
          disabled={chosen.length < 2}
          onClick={() => go(`/compare?jobs=${chosen.join(",")}`)}
        >
          Compare {chosen.length || ""} chosen
        </button>
      </div>
      {error !== null && <ProblemBox error={error} />}
      {page && shown.length === 0 && (
        <p class="card">
          {page.total === 0 && !state ? "No job yet. " : "No job matches. "}
          <a href="#/new">Send a model</a>
        </p>
      )}
      {shown.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Jobs">
          <table>
            <thead>
              <tr>
                <td />
                <th scope="col">Model</th>
                <th scope="col">State</th>
                <th scope="col">Asked for</th>
                <th scope="col" class="number">
                  Size
                </th>
                <th scope="col">Sent</th>
                <th scope="col">Owner and tags</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((job) => (
                <Row job={job} chosen={chosen.includes(job.id)} onChoose={() => toggle(job.id)} key={job.id} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {page && page.total > PAGE && (
        <nav class="row" aria-label="Pages">
          <button type="button" disabled={offset === 0} onClick={() => show({ offset: String(Math.max(0, offset - PAGE)) })}>
            Newer
          </button>
          <span>
            {offset + 1} to {Math.min(offset + PAGE, page.total)} of {page.total}
          </span>
          <button
            type="button"
            disabled={offset + PAGE >= page.total}
            onClick={() => show({ offset: String(offset + PAGE) })}
          >
            Older
          </button>
        </nav>
      )}
    </section>
  );
}

function Row({ job, chosen, onChoose }: { job: Job; chosen: boolean; onChoose: () => void }) {
  const size = job.summary?.["quantized_bytes"];
  return (
    <tr>
      <td>
        <input
          type="checkbox"
          aria-label={`Choose ${job.model} of ${new Date(job.created).toLocaleString()} to compare`}
          checked={chosen}
          disabled={job.state !== "succeeded" || job.kind !== "quantize"}
          onChange={onChoose}
        />
      </td>
      <th scope="row">
        <a href={`#/jobs/${job.id}`}>{job.model}</a>
      </th>
      <td>
        <StateBadge state={job.state} /> {!hasEnded(job) && job.state !== "queued" && percent(job.progress, 0)}
      </td>
      <td>{job.kind === "analyze" ? "analysis" : asked(job)}</td>
      <td class="number">{typeof size === "number" ? bytes(size) : ""}</td>
      <td>
        <time dateTime={job.created}>{new Date(job.created).toLocaleString()}</time>
      </td>
      <td>{[job.owner, ...(job.tags ?? [])].filter(Boolean).join(", ")}</td>
    </tr>
  );
}

/** The budgets of a job in a few words. */
export function asked(job: Job): string {
  const budget = Object.entries(job.spec.budget ?? {}).filter(([, value]) => value !== null);
  if (budget.length === 0) return "no budget";
  return budget.map(([name, value]) => `${name.replaceAll("_", " ")} ${written(value)}`).join(", ");
}

function written(value: unknown): string {
  if (typeof value === "number") return value > 1000 ? bytes(value) : String(value);
  if (value && typeof value === "object") return Object.values(value).filter((entry) => entry !== null).join(" ");
  return String(value);
}

function matches(job: Job, text: string): boolean {
  const hay = [job.model, job.owner ?? "", ...(job.tags ?? []), job.id].join(" ").toLowerCase();
  return hay.includes(text.trim().toLowerCase());
}
