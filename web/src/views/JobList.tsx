import { useEffect, useState } from "preact/hooks";

import { api } from "../api/client";
import { hasEnded, type Job, type JobPage, RUNNING } from "../api/types";
import { bytes, count, digits, percent } from "../numbers";
import { ProblemBox } from "../parts/ProblemBox";
import { StateBadge } from "../parts/StateBadge";
import { go, type Place } from "../router";

const PAGE = 25;
/** Milliseconds in which somebody types on. */
const TYPING = 200;
const STATES = ["queued", "running", "succeeded", "failed", "canceled", "expired"];

/** All jobs of the one who looks, newest first. */
export function JobList({ place }: { place: Place }) {
  const [page, setPage] = useState<JobPage | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [chosen, setChosen] = useState<readonly string[]>([]);
  const tags = place.query.getAll("tag");
  const state = place.query.get("state") ?? "";
  const text = place.query.get("text") ?? "";
  const offset = Math.max(0, Math.trunc(Number(place.query.get("offset"))) || 0);
  useEffect(() => {
    const controller = new AbortController();
    let timer = 0;
    const load = async () => {
      const query = new URLSearchParams({ limit: String(PAGE), offset: String(offset) });
      for (const name of state === "running" ? RUNNING : [state]) if (name) query.append("state", name);
      for (const tag of tags) query.append("tag", tag);
      if (text.trim()) query.set("text", text);
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
    timer = window.setTimeout(load, page === null ? 0 : TYPING);
    return () => {
      controller.abort();
      clearTimeout(timer);
    };
  }, [state, offset, text, tags.join()]);
  const show = (changes: Record<string, string>) => {
    const query = new URLSearchParams(place.query);
    for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
    go(`/jobs?${query}`);
  };
  const toggle = (id: string) =>
    setChosen(chosen.includes(id) ? chosen.filter((other) => other !== id) : [...chosen, id]);
  const showTags = (next: string[]) => {
    const query = new URLSearchParams(place.query);
    query.delete("tag");
    query.delete("offset");
    for (const tag of next) query.append("tag", tag);
    go(`/jobs?${query}`);
  };
  const shown = page?.jobs ?? [];
  const filtered = state !== "" || text.trim() !== "" || tags.length > 0;
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
          Model, samples, tag or id
          <input type="search" value={text} onInput={(event) => show({ text: event.currentTarget.value, offset: "" })} />
        </label>
        {tags.length > 0 && (
          <ul class="chips" aria-label="Only with these tags">
            {tags.map((tag) => (
              <li key={tag}>
                {tag}
                <button type="button" class="plain" aria-label={`Any jobs, not only ${tag}`} onClick={() => showTags(tags.filter((other) => other !== tag))}>
                  ×
                </button>
              </li>
            ))}
          </ul>
        )}
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
      {page === null && error === null && <p role="status">Loading</p>}
      {page && shown.length === 0 && (
        <div class="card empty">
          {filtered ? (
            <p>
              No job matches. <a href="#/jobs">Show all jobs</a>
            </p>
          ) : (
            <>
              <h2>No job yet</h2>
              <p>Send an ONNX model and some samples: what can be saved, and what it costs, is shown before anything is decided.</p>
              <a class="button main" href="#/new">
                Send a model
              </a>
            </>
          )}
        </div>
      )}
      {shown.length > 0 && (
        <div class="card flush" role="region" aria-label="Jobs">
          <table class="jobs">
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
                <th scope="col">Tags</th>
                <th scope="col">Owner</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((job) => (
                <Row job={job} chosen={chosen.includes(job.id)} onChoose={() => toggle(job.id)} onTag={(tag) => showTags([...new Set([...tags, tag])])} key={job.id} />
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

interface RowProps {
  job: Job;
  chosen: boolean;
  onChoose: () => void;
  onTag: (tag: string) => void;
}

function Row({ job, chosen, onChoose, onTag }: RowProps) {
  const size = job.summary?.["quantized_bytes"];
  const ratio = job.summary?.["ratio"];
  return (
    <tr>
      <td class="choose">
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
      <td class="number">
        {typeof size === "number" && bytes(size)}
        {typeof ratio === "number" && <small>{percent(ratio)} of float</small>}
      </td>
      <td>
        <time dateTime={job.created}>{new Date(job.created).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}</time>
      </td>
      <td>
        {job.tags.map((tag) => (
          <button type="button" class="tag" aria-label={`Only jobs with the tag ${tag}`} onClick={() => onTag(tag)} key={tag}>
            {tag}
          </button>
        ))}
      </td>
      <td>{job.owner}</td>
    </tr>
  );
}

/** The budgets of a job in a few words. */
export function asked(job: Job): string {
  const budget = Object.entries(job.spec.budget ?? {}).filter(([, value]) => value !== null);
  return budget.length === 0 ? "no budget" : budget.map(([name, value]) => written(name, value)).join(", ");
}

function written(name: string, value: unknown): string {
  if (name === "size") return Number(value) <= 1 ? `${Number((100 * Number(value)).toPrecision(3))} % of float` : bytes(Number(value));
  if (name === "latency") return `${digits(Number(value))} ms`;
  if (name === "effective_bits") return `${digits(Number(value))} bits a weight`;
  if (name === "max_drop") {
    const { metric, limit } = value as { metric: string; limit: number };
    if (metric === "drop") return `drop of ${Number((100 * limit).toPrecision(3))} % at most`;
    return `${metric} ${metric === "loss" ? "≤" : "≥"} ${limit}${metric === "sqnr" ? " dB" : ""}`;
  }
  return `${name.replaceAll("_", " ")} ${typeof value === "number" ? count(value) : String(value)}`;
}
