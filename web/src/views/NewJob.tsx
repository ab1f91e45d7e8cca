import { useEffect, useRef, useState } from "preact/hooks";

import { api, ServiceError } from "../api/client";
import type { Job, Preflight, Spec } from "../api/types";
import { formOf, type Inputs, rememberInputs } from "../api/upload";
import { useLoad } from "../load";
import { percent } from "../numbers";
import { CopyBox } from "../parts/CopyBox";
import { ProblemBox } from "../parts/ProblemBox";
import { recipes } from "../recipes";
import { go, type Place } from "../router";
import { BudgetForm } from "./BudgetForm";
import { draftFrom, EMPTY, specOf, type Draft } from "./draft";
import { EarlierUploads } from "./EarlierUploads";
import { PreflightView } from "./PreflightView";
import { remedyOf } from "./remedies";
import { NO_SOURCES, sendSources, type Source, type Sources, withFiles } from "./sources";

/** A job in three steps: files, what they hold, what is wanted. */
export function NewJob({ place }: { place: Place }) {
  const like = place.query.get("like");
  const earlier = useLoad<Job | null>(
    (signal) => (like ? api.job(like, signal) : Promise.resolve(null)),
    [like],
  );
  if (earlier.error !== null) return <ProblemBox error={earlier.error} />;
  if (like && earlier.value === null) return <p role="status">Loading</p>;
  return <Form earlier={earlier.value} key={like ?? ""} />;
}

function Form({ earlier }: { earlier: Job | null }) {
  const reusable = earlier?.state === "succeeded" && earlier.kind === "quantize" ? earlier : null;
  const [sources, setSources] = useState<Sources>(NO_SOURCES);
  const [shares, setShares] = useState<Record<string, number>>({});
  const [sent, setSent] = useState<Inputs | null>(null);
  const [preflight, setPreflight] = useState<Preflight | null>(null);
  const [draft, setDraft] = useState<Draft>(() => (earlier ? draftFrom(earlier.spec) : EMPTY));
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState("");
  const sending = useRef<AbortController | null>(null);
  useEffect(() => () => sending.current?.abort(), []);

  const change = (next: Sources) => {
    setSources(next);
    if (next.model) void sendAll(next);
  };
  const pick = (role: "model" | "data", source: Source) => change({ ...sources, [role]: source });

  const sendAll = async (wanted: Sources) => {
    sending.current?.abort();
    const controller = new AbortController();
    sending.current = controller;
    setError(null);
    setPreflight(null);
    setSent(null);
    try {
      setBusy("The files are being sent.");
      const inputs = await sendSources(
        wanted,
        (name, share) => setShares((before) => ({ ...before, [name]: share })),
        controller.signal,
      );
      setBusy("The model is being read.");
      const form = new FormData();
      form.set("model", inputs.model);
      if (inputs.data) form.set("data", inputs.data);
      for (const part of inputs.parts) form.append("files", part);
      setPreflight(await api.inspect(form, controller.signal));
      setSent(inputs);
    } catch (failure) {
      if (!controller.signal.aborted) setError(failure);
    } finally {
      if (!controller.signal.aborted) setBusy("");
    }
  };
  const stop = () => {
    sending.current?.abort();
    setBusy("");
    setSources(NO_SOURCES);
  };

  const start = async (spec: Spec) => {
    setBusy("The files are being checked.");
    setError(null);
    const inputs = sent?.data ? sent : null;
    try {
      const job = inputs ? await api.quantize(formOf(inputs, spec)) : await api.again(reusable!.id, spec);
      if (inputs) rememberInputs(job.id, inputs);
      go(`/jobs/${job.id}`);
    } catch (failure) {
      setError(failure);
      setBusy("");
    }
  };

  const ready = (sent !== null && sent.data !== "") || reusable !== null;
  const remedy = error instanceof ServiceError && ready ? remedyOf(error.problem, specOf(draft)) : null;
  return (
    // No browser's own checks: they hold the steps of a slider against it, and the service says what is wrong.
    <form
      noValidate
      aria-labelledby="new-title"
      onSubmit={(event) => {
        event.preventDefault();
        void start(specOf(draft));
      }}
    >
      <h1 id="new-title">New job</h1>
      {reusable && (
        <p class="card">
          From <a href={`#/jobs/${reusable.id}`}>{reusable.model}</a>: its files and measurements are taken over. Drop files to
          use others.
        </p>
      )}
      <DropZone onFiles={(files) => change(withFiles(sources, files ?? []))}>
        <SourceList sources={sources} shares={shares} />
        <EarlierUploads onPick={pick} />
      </DropZone>
      <div class="row" hidden={busy === ""}>
        <p role="status">{busy}</p>
        {busy === "The files are being sent." && (
          <button type="button" onClick={stop}>
            Stop sending
          </button>
        )}
      </div>
      {error !== null && !ready && <ProblemBox error={error} />}
      {preflight && !sources.data && (
        <p class="card">Samples are missing: drop an .npz with one array for each graph input, and optional labels.</p>
      )}
      {preflight && (
        <PreflightView preflight={preflight} rules={draft.rules} onRules={(rules) => setDraft({ ...draft, rules })} />
      )}
      <BudgetForm draft={draft} onDraft={setDraft} preflight={preflight} />
      {error !== null && ready && (
        <ProblemBox error={error}>
          {remedy && (
            <button type="button" class="main" onClick={() => start(remedy.spec)}>
              {remedy.words}
            </button>
          )}
        </ProblemBox>
      )}
      <div class="row">
        <button class="main" disabled={!ready || busy !== ""}>
          Start
        </button>
        {!ready && <span class="quiet">A model and samples are needed first.</span>}
      </div>
      {ready && (
        <CopyBox
          texts={recipes(
            specOf(draft),
            {
              model: sources.model?.name ?? reusable?.model ?? "model.onnx",
              data: sources.data?.name ?? reusable?.data ?? "samples.npz",
            },
            new URL(".", location.href).href,
          )}
        />
      )}
    </form>
  );
}

function DropZone({ onFiles, children }: { onFiles: (files: FileList | null) => void; children: preact.ComponentChildren }) {
  const [over, setOver] = useState(false);
  return (
    <div
      class={`drop ${over ? "drop-over" : ""}`}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => {
        event.preventDefault();
        setOver(false);
        onFiles(event.dataTransfer?.files ?? null);
      }}
    >
      <label class="drop-label">
        <strong>Drop a model and samples here, or choose files</strong>
        <span class="quiet">The model as .onnx, with its external data if it has any; samples as .npz, one array for each input, or as .npy</span>
        <input
          type="file"
          multiple
          onChange={(event) => {
            onFiles(event.currentTarget.files);
            event.currentTarget.value = "";
          }}
        />
      </label>
      {children}
    </div>
  );
}

function SourceList({ sources, shares }: { sources: Sources; shares: Record<string, number> }) {
  const all: [string, Source][] = [];
  if (sources.model) all.push(["model", sources.model]);
  if (sources.data) all.push(["samples", sources.data]);
  for (const part of sources.parts) all.push(["external data", part]);
  if (all.length === 0) return null;
  return (
    <ul class="files">
      {all.map(([role, source]) => (
        <li key={source.name}>
          <span class="file-name">
            {source.name} <span class="quiet">({role})</span>
          </span>
          {source.id === null ? (
            <>
              <progress max={1} value={shares[source.name] ?? 0} aria-label={`Sent of ${source.name}`} />
              {percent(shares[source.name] ?? 0, 0)}
            </>
          ) : (
            <span class="quiet">sent before</span>
          )}
        </li>
      ))}
    </ul>
  );
}
