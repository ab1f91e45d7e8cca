import { useEffect, useState } from "preact/hooks";

import { api, ServiceError } from "../api/client";
import { follow } from "../api/events";
import { formOf, inputsOf, rememberInputs } from "../api/upload";
import { hasEnded, type Job } from "../api/types";
import { duration, percent } from "../numbers";
import { ProblemBox } from "../parts/ProblemBox";
import { StateBadge } from "../parts/StateBadge";
import { go } from "../router";
import { Analysis } from "./Analysis";
import { remedySpec } from "./remedies";
import { Result } from "./Result";

const STAGES = ["ingest", "rounding", "sensitivity", "allocation", "calibration", "export", "verification", "report"];
const ANALYSIS = ["ingest", "rounding", "sensitivity", "report"];

interface Line {
  id: number;
  text: string;
}

/** One job: while it runs its stages, then its result or why it failed. */
export function JobPage({ id }: { id: string }) {
  const [job, setJob] = useState<Job | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [connected, setConnected] = useState(true);
  const [lines, setLines] = useState<readonly Line[]>([]);
  useEffect(() => {
    const controller = new AbortController();
    const reload = async () => setJob(await api.job(id, controller.signal));
    const run = async () => {
      await reload();
      await follow(
        id,
        (event) => {
          const { data } = event;
          if (event.kind === "progress") {
            setJob((before) => before && moved(before, data));
          } else reload().catch(() => undefined); // the stream tells when the service is back
          const text = [data["stage"] ?? data["state"], data["message"]].filter(Boolean).join(": ");
          setLines((before) => [...before.slice(-499), { id: event.id, text }]);
        },
        setConnected,
        controller.signal,
      );
      await reload();
    };
    run().catch((failure: unknown) => controller.signal.aborted || setError(failure));
    return () => controller.abort();
  }, [id]);
  if (error !== null)
    return (
      <ProblemBox error={error}>
        <a class="button" href="#/jobs">
          Show all jobs
        </a>
      </ProblemBox>
    );
  if (job === null) return <p role="status">Loading</p>;
  return (
    <article aria-labelledby="job-title">
      <div class="row">
        <h1 id="job-title">{job.model}</h1>
        <StateBadge state={job.state} />
        {!connected && (
          <span role="status" class="badge badge-failed">
            connection lost, trying again
          </span>
        )}
        <span class="end">
          {hasEnded(job) ? <DeleteButton job={job} /> : <CancelButton job={job} onDone={setJob} />}
        </span>
      </div>
      <p class="quiet">
        Job <code>{job.id}</code>, data {job.data}, sent <time dateTime={job.created}>{new Date(job.created).toLocaleString()}</time>
      </p>
      {!hasEnded(job) && <Progress job={job} />}
      {job.error && <Failure job={job} />}
      {job.state === "succeeded" && (job.kind === "quantize" ? <Result job={job} /> : <Analysis job={job} />)}
      <details class="card" open={!hasEnded(job)}>
        <summary>Log</summary>
        <ol class="log" tabIndex={0} aria-label="What the job did">
          {lines.map((line) => (
            <li key={line.id}>{line.text}</li>
          ))}
        </ol>
      </details>
    </article>
  );
}

function moved(job: Job, data: Record<string, unknown>): Job {
  return {
    ...job,
    stage: (data["stage"] as string | undefined) ?? job.stage,
    stage_progress: (data["fraction"] as number | undefined) ?? job.stage_progress,
    progress: (data["progress"] as number | undefined) ?? job.progress,
    message: (data["message"] as string | undefined) ?? job.message,
  };
}

function Progress({ job }: { job: Job }) {
  const stages = job.kind === "quantize" ? STAGES : ANALYSIS;
  const current = job.stage === null ? -1 : stages.indexOf(job.stage);
  return (
    <section class="card" aria-label="Progress">
      <progress max={1} value={job.progress} aria-label="The whole job" />
      <p role="status">
        {percent(job.progress, 0)} {job.stage ? `${job.stage}: ${job.message}` : job.message || "waits for its turn"}
        <span class="quiet"> {timeLeft(job)}</span>
      </p>
      <ol class="stages">
        {stages.map((stage, index) => (
          <li
            key={stage}
            class={index < current ? "stage-done" : index === current ? "stage-now" : ""}
            aria-current={index === current ? "step" : undefined}
          >
            {stage}
            {index === current && ` ${percent(job.stage_progress, 0)}`}
          </li>
        ))}
      </ol>
    </section>
  );
}

function timeLeft(job: Job): string {
  if (job.started === null || job.progress < 0.05) return "";
  const spent = (Date.now() - Date.parse(job.started)) / 1000;
  return `about ${duration((spent * (1 - job.progress)) / job.progress)} left`;
}

function CancelButton({ job, onDone }: { job: Job; onDone: (job: Job) => void }) {
  const [error, setError] = useState<unknown>(null);
  const cancel = async () => {
    try {
      await api.cancel(job.id);
      onDone(await api.job(job.id));
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <>
      <button type="button" class="danger" disabled={job.cancel_requested} onClick={cancel}>
        {job.cancel_requested ? "Is being canceled" : "Cancel"}
      </button>
      {error !== null && <ProblemBox error={error} />}
    </>
  );
}

function DeleteButton({ job }: { job: Job }) {
  const [asking, setAsking] = useState(false);
  const [error, setError] = useState<unknown>(null);
  const remove = async () => {
    try {
      await api.remove(job.id);
      go("/jobs");
    } catch (failure) {
      if (failure instanceof ServiceError && failure.status === 404) go("/jobs");
      else setError(failure);
    }
  };
  if (error !== null) return <ProblemBox error={error} />;
  if (!asking)
    return (
      <button type="button" onClick={() => setAsking(true)}>
        Delete
      </button>
    );
  return (
    <span class="row">
      Delete the job and its files?
      <button type="button" class="danger" onClick={remove}>
        Delete
      </button>
      <button type="button" onClick={() => setAsking(false)}>
        Keep
      </button>
    </span>
  );
}

function Failure({ job }: { job: Job }) {
  const [error, setError] = useState<unknown>(null);
  const inputs = inputsOf(job.id);
  const remedy = inputs && remedySpec(job);
  const apply = async () => {
    if (!remedy) return;
    try {
      const next = await api.quantize(formOf(inputs, remedy.spec));
      rememberInputs(next.id, inputs);
      go(`/jobs/${next.id}`);
    } catch (failure) {
      setError(failure);
    }
  };
  return (
    <ProblemBox error={job.error}>
      <div class="row">
        {remedy && (
          <button type="button" class="main" onClick={apply}>
            {remedy.words}
          </button>
        )}
        <a class="button" href={`#/new?like=${job.id}`}>
          Change the request
        </a>
      </div>
      {error !== null && <ProblemBox error={error} />}
    </ProblemBox>
  );
}
